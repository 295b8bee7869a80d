_base_ = "./classification/espikeformer-10m_t1_8xb256-200e_in1k.py"
