// config.json as published, keys and values: each reads as the model whose parameters its makers count. The
// repositories are named; no weights are needed.
#include <gtest/gtest.h>

#include "core/error.h"
#include "models/family.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec read(const std::string& family, const std::string& text) {
  const Family& row = families().at(family);
  const Json config = formats::parse_json(text, "config.json");
  const std::string type = config.at("model_type").get<std::string>();
  EXPECT_NE(std::find(row.hf_model_types.begin(), row.hf_model_types.end(), type), row.hf_model_types.end());
  return row.spec_from_hf(config, "config.json");
}

int64_t parameters(const DecoderSpec& spec) { return Decoder(spec, at::kMeta).parameters().stored(); }

TEST(PublishedConfigs, Gpt2) {
  const DecoderSpec s = read("gpt2", R"({
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
    "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
    "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257})");
  EXPECT_EQ(parameters(s), 124'439'808);
}

// meta-llama/Llama-3.2-1B
TEST(PublishedConfigs, Llama32) {
  const DecoderSpec s = read("llama", R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})");
  EXPECT_EQ(parameters(s), 1'235'814'400);
  EXPECT_EQ(s.context, 131072);
  EXPECT_EQ(s.rope_theta, 500000.0);
  EXPECT_TRUE(s.rope_scaling == (kernels::RopeScaling{"llama3", 32.0, 1.0, 4.0, 8192}));
}

// TinyLlama/TinyLlama-1.1B-Chat-v1.0, whose config.json has no head_dim
TEST(PublishedConfigs, TinyLlama) {
  const DecoderSpec s = read("llama", R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5632,
    "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 22,
    "num_key_value_heads": 4, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
    "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.35.0", "use_cache": true, "vocab_size": 32000})");
  EXPECT_EQ(parameters(s), 1'100'048'384);
  EXPECT_EQ(s.head_dim, 64);
  EXPECT_EQ(s.rope_scaling.kind, "none");
}

// HuggingFaceTB/SmolLM2-135M
TEST(PublishedConfigs, SmolLm2) {
  const DecoderSpec s = read("llama", R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0,
    "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
    "vocab_size": 49152})");
  EXPECT_EQ(parameters(s), 134'515'008);
  EXPECT_EQ(s.rope_theta, 100000.0);
}

// facebook/MobileLLM-125M: the head is tied by a key of its own.
TEST(PublishedConfigs, MobileLlm) {
  const std::string text = R"({
    "architectures": ["MobileLLMForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_mobilellm.MobileLLMConfig",
                 "AutoModelForCausalLM": "modeling_mobilellm.MobileLLMForCausalLM"},
    "bos_token_id": 1, "eos_token_id": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 576,
    "initializer_range": 0.02, "intermediate_size": 1536, "layer_sharing": false,
    "max_position_embeddings": 2048, "mlp_bias": false, "model_type": "mobilellm", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": null, "rope_theta": 10000.0, "share_embedding": true, "tie_word_embeddings": false,
    "transformers_version": "4.56.0", "use_cache": true, "vocab_size": 32000})";
  EXPECT_EQ(parameters(read("llama", text)), 124'635'456);
  Json shared = formats::parse_json(text, "");
  shared["layer_sharing"] = true;  // MobileLLM-125M-layer-share: its layers run twice
  EXPECT_THROW(read("llama", shared.dump()), DataError);
  shared["layer_sharing"] = shared["share_embedding"] = false;
  EXPECT_EQ(parameters(read("llama", shared.dump())), 143'067'456);
  shared["model_type"] = "llama";  // of a Llama these keys mean nothing
  shared["share_embedding"] = true;
  EXPECT_FALSE(read("llama", shared.dump()).tie_embeddings);
}

// MBZUAI/MobiLlama-05B: 4 key/value heads by config.json, 32 by its code and weights. That one feed-forward
// network serves all layers is for the weights to say.
TEST(PublishedConfigs, MobiLlama) {
  const DecoderSpec s = read("llama", R"({
    "architectures": ["MobiLlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoModelForCausalLM": "modelling_mobillama.MobiLlamaForCausalLM"}, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 5632, "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 22, "num_key_value_heads": 4, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32",
    "transformers_version": "4.36.1", "use_cache": true, "vocab_size": 32000})");
  EXPECT_EQ(s.kv_heads, 32);
  EXPECT_EQ(parameters(s), 1'261'529'088);
}

// microsoft/Phi-3-mini-4k-instruct
TEST(PublishedConfigs, Phi3Mini4k) {
  const DecoderSpec s = read("phi3", R"({
    "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_bias": false,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
                 "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
    "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
    "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true, "vocab_size": 32064})");
  EXPECT_EQ(parameters(s), 3'821'079'552);
  EXPECT_EQ(s.window, 2047);
  EXPECT_EQ(s.rope_scaling.kind, "none");
}

// microsoft/Phi-3-mini-128k-instruct; of the 48 factors each way the first stands for all.
TEST(PublishedConfigs, Phi3Mini128k) {
  Json config = formats::parse_json(R"({
    "_name_or_path": "Phi-3-mini-128k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_bias": false,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config",
                 "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
    "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
    "rope_scaling": {"type": "longrope"}, "rope_theta": 10000.0, "sliding_window": 262144,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.40.2",
    "use_cache": true, "vocab_size": 32064})",
                                    "");
  config["rope_scaling"]["long_factor"] = std::vector<double>(48, 1.0700000524520874);
  config["rope_scaling"]["short_factor"] = std::vector<double>(48, 1.1);
  for (const char* type : {"longrope", "su"}) {
    config["rope_scaling"]["type"] = type;
    const DecoderSpec s = read("phi3", config.dump());
    EXPECT_EQ(parameters(s), 3'821'079'552);
    EXPECT_EQ(s.window, 262144);
    EXPECT_EQ(s.rope_scaling.kind, "longrope");
    EXPECT_EQ(s.rope_scaling.original_context, 4096);
    EXPECT_EQ(s.rope_scaling.factor, 32.0);
    EXPECT_EQ(s.rope_scaling.long_factor.front(), 1.07);
    EXPECT_NEAR(kernels::rope_amplitude(s.rope_scaling), 1.190238, 1e-6);
  }
}

// Qwen/Qwen2.5-0.5B: a window is named, and not used.
TEST(PublishedConfigs, Qwen25) {
  const DecoderSpec s = read("qwen2", R"({
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false, "use_sliding_window": false,
    "vocab_size": 151936})");
  EXPECT_EQ(parameters(s), 494'032'768);
  EXPECT_TRUE(s.qkv_bias);
  EXPECT_FALSE(s.attention_bias);
  EXPECT_EQ(s.window, 0);
  EXPECT_EQ(s.norm_eps, 1e-6);
}

// Qwen/Qwen3-0.6B
TEST(PublishedConfigs, Qwen3) {
  const std::string text = R"({
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
    "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";
  const DecoderSpec s = read("qwen3", text);
  EXPECT_EQ(parameters(s), 596'049'920);
  EXPECT_EQ(s.rope_theta, 1e6);
  Json silent = formats::parse_json(text, "");
  for (const char* key : {"head_dim", "use_sliding_window", "attention_bias"}) silent.erase(key);
  EXPECT_TRUE(read("qwen3", silent.dump()) == s);  // 128 is transformers' default, not 1024 / 16
}

// google/gemma-3-1b-it, of transformers 4.50 and later
TEST(PublishedConfigs, Gemma3OneBillion) {
  const DecoderSpec s = read("gemma3", R"({
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
    "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
    "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
    "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null,
    "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0", "use_cache": true, "vocab_size": 262144})");
  EXPECT_EQ(parameters(s), 999'885'952);
  EXPECT_EQ(s.window, 512);
  EXPECT_EQ(s.global_every, 6);
  EXPECT_EQ(s.rope_theta, 1e6);
  EXPECT_EQ(s.rope_local_theta, 1e4);
  EXPECT_TRUE(s.tie_embeddings);
}

// google/gemma-3-270m: layer_types beside the period's newer name
TEST(PublishedConfigs, Gemma3Small) {
  Json config = formats::parse_json(R"({
    "_sliding_window_pattern": 6, "architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
    "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2, "eos_token_id": 1,
    "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640, "initializer_range": 0.02, "intermediate_size": 2048, "max_position_embeddings": 32768,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 18, "num_key_value_heads": 1,
    "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0,
    "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": 512, "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0.dev0", "use_bidirectional_attention": false, "use_cache": true,
    "vocab_size": 262144})",
                                    "");
  for (int layer = 0; layer < 18; ++layer)
    config["layer_types"].push_back(layer % 6 == 5 ? "full_attention" : "sliding_attention");
  const DecoderSpec s = read("gemma3", config.dump());
  EXPECT_EQ(parameters(s), 268'098'176);
  EXPECT_TRUE(s.windowed(0));
  EXPECT_FALSE(s.windowed(17));
}

}  // namespace
}  // namespace retort::models
