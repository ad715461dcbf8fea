modelname = "groundingdino"
backbone = "swin_T_224_1k"
swin = {
    "embed_dim": 24,
    "depths": [1, 2, 2, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 6,
    "mlp_ratio": 2.0,
}
return_interm_indices = [1, 2, 3]
backbone_freeze_keywords = None
position_embedding = "sine"
pe_temperatureH = 20
pe_temperatureW = 20
hidden_dim = 96
nheads = 4
num_queries = 20
enc_layers = 2
dec_layers = 2
dim_feedforward = 192
num_feature_levels = 3
enc_n_points = 2
dec_n_points = 4
query_dim = 4
num_patterns = 0
pre_norm = False
dropout = 0.0
text_dropout = 0.0
fusion_dropout = 0.0
fusion_droppath = 0.0
transformer_activation = "relu"
two_stage_type = "standard"
two_stage_bbox_embed_share = False
two_stage_class_embed_share = False
dec_pred_bbox_embed_share = True
embed_init_tgt = True
use_text_enhancer = True
use_fusion_layer = True
use_text_cross_attention = True
use_checkpoint = False
use_transformer_ckpt = False
dn_number = 0
dn_box_noise_scale = 1.0
dn_label_noise_ratio = 0.5
dn_label_coef = 1.0
dn_bbox_coef = 1.0
dn_labelbook_size = 2000
sub_sentence_present = True
max_text_len = 256
text_encoder_type = "text"
