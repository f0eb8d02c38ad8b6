// SpaceByte (Slagle 2024, arXiv 2404.14408): byte layers, a wider core that runs once a patch, byte layers.
//
//   x = embed[bytes];  x = first half of the byte layers(x), each byte seeing `window` bytes
//   y = x at the bytes that end a patch, widened by zeros in front;  y = core(y)
//   x += the last dimensions of y at those bytes;  x = second half(x);  h = norm(x)
//
// As published but for rotary positions (a patch's is its number in the row) where the original learns them,
// gated feed-forward networks and no limit on the patches of a row. Names: embed, before.layers.N,
// core.layers.N, after.layers.N, final_norm, lm_head. B batch, T bytes, P patches, D width of the core, E of
// bytes.
#include <algorithm>

#include "core/error.h"
#include "models/bytes/patch_model.h"
#include "models/document_mask.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

class SpaceByte final : public PatchModel {
 public:
  SpaceByte(DecoderSpec spec, at::Device device) : PatchModel(std::move(spec), device) {
    const int64_t first = spec_.patch->layers / 2, second = spec_.patch->layers - first;
    declare_embedding();
    before_.emplace(parameters_, byte_spec(first), "before.", spec_.patch->layers);
    core_.emplace(parameters_, core_spec(), "core.");
    after_.emplace(parameters_, byte_spec(second), "after.", spec_.patch->layers);
    final_norm_ = Scope(parameters_, spec_, "", "").norm("final_norm", spec_.patch->width);
    declare_head();
  }

 protected:
  at::Tensor run(const TokenBlock& block) override {
    const at::Device device = embed_->working.device();
    for (Layers* layers : {&*before_, &*core_, &*after_}) layers->prepare(spec_.context, device);
    const Patches patches = find_patches(block.tokens_BT, block.document_BT, {.first = true});
    const LayerCall bytes{.positions_BT = block.positions_BT,
                          .mask = document_mask(block.document_BT, device)};
    const LayerCall call{
        .positions_BT =
            at::arange(patches.last_BP.size(1), patches.last_BP.options()).expand_as(patches.last_BP),
        .mask = {.document_BS = patches.document_BP}};
    const int64_t E = spec_.patch->width;
    at::Tensor x_BTE = (*before_)(embedded(block.tokens_BT), bytes).sum();
    const at::Tensor wide_BPD =
        at::constant_pad_nd(take_rows(x_BTE, patches.last_BP, /*zero=*/false), {spec_.width - E, 0});
    const at::Tensor y_BPE = (*core_)(wide_BPD, call).sum().narrow(-1, spec_.width - E, E);
    x_BTE = x_BTE + take_rows(y_BPE, patches.ended_BT, /*zero=*/true);
    Residual stream = (*after_)(std::move(x_BTE), bytes);
    return final_norm_(stream);
  }

  double runs(const Parameter& p) const override {
    return p.name.starts_with("core.") ? 1.0 / kBytesPerPatch : 1.0;
  }
  double attended(int64_t tokens) const override {
    const PatchSpec& p = *spec_.patch;
    const double T = static_cast<double>(tokens);
    const double seen = p.window > 0 ? std::min(static_cast<double>(p.window), T) : T;
    return static_cast<double>(p.layers * p.width) * seen +
           static_cast<double>(spec_.layers * spec_.heads * spec_.head_dim) * T / kBytesPerPatch /
               kBytesPerPatch;
  }

 private:
  std::optional<Layers> before_, core_, after_;
  Norm final_norm_;
};

void check_spec(const DecoderSpec& s) {
  check_patch_spec(s);
  check<ConfigError>(s.patch->layers >= 2, "model.patch.layers must be >= 2 for spacebyte, got {}",
                     s.patch->layers);
  check<ConfigError>(s.patch->width <= s.width, "model.patch.width must be at most model.width {}, got {}",
                     s.width, s.patch->width);
  check<ConfigError>(s.patch->longest == 0 && !s.patch->parallel,
                     "model.patch.longest and head parallel belong to model.family stlm");
  check<ConfigError>(s.vocabulary == 256, "model.vocabulary must be 256 for spacebyte, got {}", s.vocabulary);
}

}  // namespace

Family spacebyte_family() {
  Family family;
  family.name = family.defaults.family = "spacebyte";
  family.defaults.patch = PatchSpec{.window = 64};
  family.check = check_spec;
  family.make = [](DecoderSpec spec, at::Device device) -> std::unique_ptr<Model> {
    return std::make_unique<SpaceByte>(std::move(spec), device);
  };
  return family;
}

}  // namespace retort::models
