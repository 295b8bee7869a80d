_base_ = "./classification/metaspikeformer-15m_t1_8xb128-200e_in1k.py"
