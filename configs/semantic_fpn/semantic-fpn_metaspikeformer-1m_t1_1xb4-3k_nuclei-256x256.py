# Your own data, as an example: the nuclei of the 2018 Data Science Bowl, background and nucleus,
# from scratch at a small width. Images lie in train/ and val/, label maps (0, 1) in semseg/.
_base_ = "./semantic-fpn_metaspikeformer-15m_t1_b8-160k_ade20k-512x512.py"

data_root = "data/nuclei/"
metainfo = dict(classes=("background", "nucleus"), palette=[[0, 0, 0], [255, 200, 0]])
max_iters = 3000
width = 32  # of neck and head
crop = (256, 256)  # most images are no larger

model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[16, 32, 64, 96], num_heads=4),
        attn_init_size=crop,
        init_cfg=None,
    ),
    neck=dict(in_channels=[8, 16, 32, 96], out_channels=width),
    decode_head=dict(in_channels=[width] * 4, channels=width, num_classes=len(metainfo["classes"])),
)

labels = dict(type="LoadAnnotations")  # they count from 0, those of ADE20K from 1
# Nuclei shine at 5 to 10 % of white in most images, and are dark on white in others: stretched to
# the full range, all are learnt at once. (At 1.0, AdjustGamma only makes whole numbers of them.)
stretch = [
    dict(type="mmspike.seg.Stretch", min_value=0, max_value=255),
    dict(type="AdjustGamma", gamma=1.0),
]
scale = (1024, 256)  # of an image's longer and shorter side, at most
train_pipeline = [
    _base_.train_pipeline[0],
    *stretch,
    labels,
    {**_base_.train_pipeline[2], "scale": scale},
    {**_base_.train_pipeline[3], "crop_size": crop},
    *_base_.train_pipeline[4:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    *stretch,
    {**_base_.test_pipeline[1], "scale": scale},
    labels,
    _base_.test_pipeline[3],
]
dataset = dict(type="BaseSegDataset", data_root=data_root, metainfo=metainfo, img_suffix=".jpg")
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="train", seg_map_path="semseg/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="val", seg_map_path="semseg/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 4)
# from scratch in a few thousand small steps: higher rates than for 160,000 from ImageNet weights
optim_wrapper = dict(
    optimizer=dict(lr=3e-3), paramwise_cfg=dict(lr_mults={"decode_head.conv_seg": 5.0})
)
param_scheduler = [
    {**_base_.param_scheduler[0], "end": 50},
    {**_base_.param_scheduler[1], "begin": 50, "end": max_iters},
]
default_hooks = dict(checkpoint=dict(interval=max_iters), logger=dict(interval=10))
log_processor = dict(window_size=10)
