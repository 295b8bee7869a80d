# ImageNet weights of the backbones; docs/transfer.md says where they come from.
pretrained_15m = "checkpoints/metaspikeformer_15M.pth"
pretrained_31m = "checkpoints/metaspikeformer_31M.pth"
pretrained_55m = "checkpoints/metaspikeformer_55M.pth"
pretrained_espikeformer_10m = "checkpoints/espikeformer_10M.pth"
pretrained_espikeformer_19m = "checkpoints/espikeformer_19M.pth"
