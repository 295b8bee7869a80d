# What every training of a classifier has besides model, data and schedule, as mmpretrain has it.
# (Restated: plain mmengine does not find "mmpretrain::" where it comes from onedl-mmpretrain.)
default_scope = "mmpretrain"
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=5, max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(_scope_="mmpretrain", type="VisualizationHook", enable=False),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(
    _scope_="mmpretrain", type="UniversalVisualizer", vis_backends=vis_backends, name="visualizer"
)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
