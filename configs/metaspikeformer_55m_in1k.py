_base_ = "./classification/metaspikeformer-55m_t1_8xb128-200e_in1k.py"
