_base_ = "./classification/metaspikeformer-15m-distilled_t4_8xb24-20e_in1k.py"
