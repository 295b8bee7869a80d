# What every training has: it stops at the first number that is not finite.
custom_hooks = [dict(type="mmspike.FiniteHook")]
