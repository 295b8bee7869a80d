# What every training has: it stops at the first number that is not finite, and resumes exactly.
custom_hooks = [dict(type="mmspike.FiniteHook"), dict(type="mmspike.ExactResumeHook")]
