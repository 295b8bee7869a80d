# An example of your own data: the nuclei of the 2018 Data Science Bowl, background and nucleus.
# A smaller model than that of semantic-fpn_..._own-label-maps-256x256.py does for two classes.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike_1m.py",
    "../_base_/datasets/label_maps.py",
    "../_base_/schedules/adamw_3k.py",
    "../_base_/seg_runtime.py",
]

data_root = "data/nuclei/"
metainfo = dict(classes=("background", "nucleus"), palette=[[0, 0, 0], [255, 200, 0]])
scale = (1024, 256)
# Nuclei shine at 5 to 10 % of white in most images, and are dark on white in others: stretched to
# the full range, all are learnt at once. (At 1.0, AdjustGamma only makes whole numbers of them.)
stretch = [
    dict(type="mmspike.seg.Stretch", min_value=0, max_value=255),
    dict(type="AdjustGamma", gamma=1.0),
]
train_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    *stretch,
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(256, 256), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    *stretch,
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="mmseg.PackSegInputs"),
]
model = dict(decode_head=dict(num_classes=len(metainfo["classes"])))
dataset = dict(data_root=data_root, metainfo=metainfo, img_suffix=".jpg")
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
