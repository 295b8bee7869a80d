# Label maps of your own: images in train/ and val/, a PNG for each, of the same name, in
# semseg/train/ and semseg/val/: at each pixel the number of its class, from 0, or 255 for none.
# From scratch at a small width, for a few hundred images: change the first three settings.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike_4m.py",
    "../_base_/datasets/label_maps.py",
    "../_base_/schedules/adamw_3k.py",
    "../_base_/seg_runtime.py",
]

data_root = "data/own/"
classes = ("background", "object")  # in the order of their numbers in the label maps
img_suffix = ".jpg"

model = dict(
    data_preprocessor=dict(size=(256, 256)),
    backbone=dict(attn_init_size=(256, 256)),
    decode_head=dict(num_classes=len(classes)),
)
dataset = dict(data_root=data_root, metainfo=dict(classes=classes), img_suffix=img_suffix)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
