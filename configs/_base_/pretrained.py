# ImageNet weights of the backbones; docs/transfer.md says where they come from.
pretrained_15m = "checkpoints/metaspikeformer_15M.pth"
pretrained_55m = "checkpoints/metaspikeformer_55M.pth"
