# Your own boxes, in COCO's format: annotations/train.json and val.json, train/ and val/.
# From scratch at a small width, for a few hundred images: change the first three settings.
_base_ = "../_base_/own_boxes.py"

data_root = "data/bccd/"
classes = ("RBC", "WBC", "Platelets")  # as the annotations name them
size = (320, 240)  # width and height into which images are scaled

model = dict(
    backbone=dict(attn_init_size=size[::-1]),
    roi_head=dict(bbox_head=dict(num_classes=len(classes))),
)
resize = dict(type="Resize", scale=size, keep_ratio=True)
train_pipeline = [_base_.load_image, _base_.load_boxes, resize, _base_.flip, _base_.pack]
test_pipeline = [_base_.load_image, resize, _base_.load_boxes, _base_.pack_test]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/val.json")
test_evaluator = val_evaluator
