_base_ = "./classification/espikeformer-19m_t1-d4_8xb256-200e_in1k.py"
