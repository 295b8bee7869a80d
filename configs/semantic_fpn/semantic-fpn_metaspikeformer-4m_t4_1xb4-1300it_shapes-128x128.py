# The demo of generated shapes at T = 4.
_base_ = "./semantic-fpn_metaspikeformer-4m_t1_1xb4-1300it_shapes-128x128.py"

model = dict(backbone=dict(time_steps=4))
