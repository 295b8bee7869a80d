# The demo of generated shapes with integer neurons (NI-LIF), D = 4.
_base_ = "./mask-rcnn_metaspikeformer-4m_t1_1xb4-1k_shapes-128x128.py"

model = dict(neuron_cfg=dict(_delete_=True, type="mmspike.IntegerLIF", levels=4))
