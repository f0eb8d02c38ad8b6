#include "recipes/stages/train_plan.h"

#include <algorithm>
#include <cmath>

#include "artifacts/text_shards.h"
#include "core/cpu.h"
#include "core/log.h"
#include "core/table.h"
#include "data/prepare.h"
#include "distill/objective.h"
#include "kernels/product.h"
#include "models/adapters.h"
#include "models/family.h"
#include "plan/communication.h"
#include "quantize/quantize_map.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
#include "recipes/preference_options.h"
#include "recipes/stage_check.h"
#include "recipes/stages/distill_cost.h"
#include "recipes/stages/initial_model.h"
#include "recipes/stages/teachers.h"
#include "train/micro_graph.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

using formats::Json;
using plan::Policy;

// As a run decides (StageContext::precision). The ranks of a CPU are those that share it.
bool in_bf16(const std::string& precision, const plan::Device& device) {
  if (precision != "auto") return precision == "bf16";
  return !device.shared || kernels::prefers_bf16(cpu_features());
}

// Ids of the text that a stage trains on; nothing where neither shards nor their tokenizer are there yet.
std::optional<int64_t> text_vocabulary(const Recipe& recipe, const Stage& stage) {
  const std::string text = text_behind(recipe, stage.get<DataOptions>().sources().front().train);
  const Stage* made = recipe.maker_of(text);
  if (made != nullptr) {
    const auto* prepare = made->find<data::PrepareOptions>();
    return prepare != nullptr ? tokenizer_size(recipe, prepare->tokenizer) : std::nullopt;
  }
  if (!artifacts::holds_shards(text)) return std::nullopt;
  return data::TokenShards(text).vocabulary();
}

// The stage's model as it is trained, without values: with its adapters and the scales of its grids.
std::unique_ptr<models::Model> trained_shape(const Recipe& recipe, const Stage& stage,
                                             const models::DecoderSpec& spec) {
  auto model = models::make_model(spec, at::kMeta);
  model->set_tokens(
      std::min(model->vocabulary(), text_vocabulary(recipe, stage).value_or(model->vocabulary())));
  if (const auto& adapters = stage.get<AdapterSection>())
    model = models::adapt(std::move(model), *adapters, 0);
  if (const auto& grids = stage.get<QuantizeSection>()) quantize::QuantizeMap(*grids, model->parameters());
  return model;
}

plan::Precision precision_of(const Stage& stage, bool bf16) {
  const auto& grids = stage.get<QuantizeSection>();
  const auto& adapters = stage.get<AdapterSection>();
  return {.bf16 = bf16,
          .on_grid = grids.has_value(),
          .rounded_inputs = grids && grids->activations != "none",
          .base = adapters ? adapters->base : "f32"};
}

// What a preference loss compares with: the model as it begins, beside it. A frozen base serves both.
void add_reference(const Stage& stage, const models::Model& model, TrainPlan& out) {
  const auto& preference = stage.get<PreferenceSection>();
  if (!preference || !distill::preference_losses().at(preference->loss).needs_reference) return;
  if (preference->precompute) return;  // it is gone before the first step
  plan::TeacherLoad reference = plan::teacher_of(model, out.work.bf16);
  const plan::ParameterCount& count = out.work.parameters;
  const int64_t shared = out.work.bf16 ? count.coded : count.frozen();
  reference.weights -= out.work.element() * static_cast<double>(shared);
  if (starts_divided(stage) && !stage.get<AdapterSection>()) reference.gathered = out.work.gathered;
  out.work.teachers.push_back(reference);
  out.teacher_flops += plan::forward_flops_a_token(model, stage.get<DataOptions>().sequence);
}

// What the stage's objective will say of itself (train/objective.h), teachers aside.
std::string objective_says(const Stage& stage) {
  const auto& distill = stage.get<DistillSection>();
  if (stage.get<PreferenceSection>() || (distill && distill->on_policy)) return "it looks at the host";
  const auto losses = distill ? distill->losses : std::vector<distill::LossOptions>{};
  return distill::not_repeatable(losses, {.alpha = stage.get<train::TrainOptions>().neftune});
}

// Whether micro-batches are repeated as graphs, teachers aside.
bool repeats(const Stage& stage, models::Model& model) {
  return stage.get<train::TrainOptions>().graph && !stage.get<DataOptions>().isolates() &&
         train::not_repeatable(objective_says(stage), model).empty();
}

// False when a teacher's shape is not known.
bool add_teachers(const Recipe& recipe, const Stage& stage, const models::DecoderSpec& student,
                  TrainPlan& out) {
  const auto& distill = stage.get<DistillSection>();
  if (!distill) return true;
  out.work.distills = true;
  for (const TeacherOptions& teacher : distill->all_teachers()) {
    if (teacher.kind == "cached") {
      const auto cost = distill_cost(recipe, stage);
      out.work.labels += cost ? cost->labels : 0;
      out.work.graph = false;
      continue;
    }
    if (teacher.kind == "live" && teacher.model.empty()) continue;  // no loss needs it
    const auto spec = teacher_shape(recipe, stage, teacher);
    if (!spec) return false;
    const auto model = models::make_model(teacher.kind == "self" ? student : *spec, at::kMeta);
    plan::TeacherLoad load = plan::teacher_of(*model, in_bf16(teacher.precision, out.device));
    load.gathered = plan::gathered_by(*model);
    out.work.teachers.push_back(std::move(load));
    out.teacher_flops += plan::forward_flops_a_token(*model, stage.get<DataOptions>().sequence);
    const bool by_itself = distill->all_teachers().size() == 1 && teacher.bridge == "none";
    out.work.graph = out.work.graph && by_itself && train::not_repeatable(*model).empty();
  }
  return true;
}

std::string bytes_text(double bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }
std::string tera(double rate) { return fmt::format("{:.4g} TFLOP/s", rate / 1e12); }

std::string precision_name(const TrainPlan& p) { return p.work.bf16 ? "bf16" : "fp32"; }

std::vector<Policy> policies_of(const TrainPlan& p) {
  if (p.work.batch.ranks == 1) return {Policy::kNone};
  std::vector<Policy> out{plan::kPolicies.begin(), plan::kPolicies.end()};
  if (p.work.gathered.divided.all() == 0) std::erase(out, Policy::kParameters);
  return out;
}

std::string parameters_text(const TrainPlan& p) {
  const plan::ParameterCount& count = p.work.parameters;
  std::string out =
      fmt::format("  parameters  {} stored, {} trained", grouped(count.stored), grouped(count.trained()));
  if (count.frozen() > 0) out += fmt::format(", {} frozen", grouped(count.frozen()));
  if (count.expanded != count.stored) out += fmt::format(", {} expanded", grouped(count.expanded));
  return out + "\n";
}

std::string flops_text(const TrainPlan& p) {
  std::string out = fmt::format("  FLOPs       {:.4g} a token: {:.4g} products, {:.4g} attention",
                                p.flops_a_token(), p.student.products, p.student.attention);
  if (p.teacher_flops > 0) out += fmt::format(", {:.4g} teacher", p.teacher_flops);
  out += fmt::format("; {:.4g} a step", p.flops_a_token() * static_cast<double>(p.batch_tokens));
  return out +
         "\n              6 N' + 12 L H K T: matrices as often as they run, the head once, no look-up, "
         "attention's "
         "full\n              square; a teacher's forward pass is a third of that; nothing is recomputed\n";
}

// A column a policy, a row a part; parts that no policy has are left out.
std::string memory_text(const TrainPlan& p) {
  const std::vector<Policy> policies = policies_of(p);
  std::vector<plan::Moment> peaks;
  std::vector<std::vector<std::string>> rows = {{"bytes of a rank"}};
  for (const Policy policy : policies) {
    peaks.push_back(plan::peak(p.work, policy));
    rows[0].push_back(plan::policy_name(policy) + (plan::in_engine(policy) ? "" : " *"));
  }
  for (size_t part = 0; part < peaks[0].memory.parts().size(); ++part) {
    std::vector<std::string> row = {peaks[0].memory.parts()[part].first};
    double most = 0;
    for (const plan::Moment& one : peaks) {
      const double bytes = one.memory.parts()[part].second;
      most = std::max(most, bytes);
      row.push_back(bytes > 0 ? bytes_text(bytes) : "-");
    }
    if (most > 0) rows.push_back(row);
  }
  rows.insert(rows.end(), {{"all"}, {"highest at"}, {"fits"}, {"sent a step"}});
  const double room = p.device.memory_of_rank(p.work.batch.ranks);
  for (size_t i = 0; i < policies.size(); ++i) {
    const double all = peaks[i].memory.total();
    rows.end()[-4].push_back(bytes_text(all));
    rows.end()[-3].push_back(peaks[i].name);
    rows.end()[-2].push_back(all <= room ? "yes" : "no");
    rows.end()[-1].push_back(bytes_text(plan::bytes_sent(p.work, policies[i])));
  }
  if (policies.size() == 1) rows.pop_back();
  std::string out = markdown_table(rows);
  if (policies.size() > 1)
    out += "* not in this version: masters and moments divided among the ranks, and gradients not\n";
  return out;
}

std::string remedy_text(const TrainPlan& p) {
  if (plan::fits(p.work, p.device, p.policy)) return "";
  const plan::Batch& batch = p.work.batch;
  const plan::Remedy remedy = plan::remedy(p.work, p.device, p.policy);
  std::string out = fmt::format("  does not fit the {} that tensors of a rank have on {}",
                                bytes_text(p.device.memory_of_rank(batch.ranks)), p.device.name);
  plan::Workload in_turn = p.work;
  in_turn.copies_saves = false;
  if (p.work.copies_saves && plan::fits(in_turn, p.device, p.policy)) out += "; train.save: sync does";
  plan::Workload eager = p.work;
  eager.graph = false;
  if (p.work.graph && plan::fits(eager, p.device, p.policy)) out += "; train.graph: false does";
  if (remedy.rows) out += fmt::format("; data.micro_batch {} instead of {} does", *remedy.rows, batch.rows);
  if (remedy.sharding) {
    const auto& s = *remedy.sharding;
    out +=
        plan::in_engine(s.policy)
            ? fmt::format("; parallel.shard: {} on {} ranks with data.micro_batch {} does",
                          plan::policy_name(s.policy), s.ranks, s.rows)
            : fmt::format("; {} on {} ranks with data.micro_batch {} would, which this version does not have",
                          plan::policy_name(s.policy), s.ranks, s.rows);
  }
  if (!remedy.rows && !remedy.sharding)
    out += p.device.shared ? "; no data.micro_batch does: a smaller model, or a machine with more memory"
                           : "; no policy on up to 65,536 ranks would: a smaller model or shorter rows";
  return out + "\n";
}

std::string time_text(const TrainPlan& p) {
  const plan::StepTime time = p.time();
  const double tokens = static_cast<double>(p.batch_tokens), ranks = static_cast<double>(p.work.batch.ranks);
  const double devices = p.device.shared ? 1 : ranks, steps = static_cast<double>(p.steps);
  std::string out = fmt::format("  time        {:.3g} s a step, {} tokens/s", time.total(),
                                format_rate(tokens / time.total()));
  if (p.steps > 0)
    out += fmt::format("; {} steps: {}, {:.3g} device-hours", p.steps, format_seconds(steps * time.total()),
                       steps * time.total() * devices / 3600);
  out += fmt::format("\n              assumes {:.0f} % of {} in products", 100 * time.efficiency,
                     tera(p.device.rate(p.work.bf16)));
  if (time.bandwidth > 0 && p.work.batch.ranks > 1)
    out += fmt::format(", {:.3g} GB/s a rank, {:.3g} s of communication that nothing hides",
                       time.bandwidth / 1e9, time.exposed);
  if (p.device.shared && p.work.batch.ranks > 1) out += ", communication not counted";
  out += fmt::format("\n              {}: {}\n", p.device.name, p.device.source);
  if (!p.device.shared)
    out +=
        "              a formula: run.device takes a GPU that answers, and Retort has not run on a GPU yet\n";
  return out;
}

Json memory_json(const TrainPlan& p, Policy policy) {
  const plan::Moment peak = plan::peak(p.work, policy);
  Json parts = Json::object();
  for (const auto& [name, bytes] : peak.memory.parts()) parts[name] = bytes;
  return {{"policy", plan::policy_name(policy)},
          {"in_engine", plan::in_engine(policy)},
          {"bytes", parts},
          {"total_bytes", peak.memory.total()},
          {"highest_at", peak.name},
          {"fits", plan::fits(p.work, p.device, policy)},
          {"bytes_sent_a_step", plan::bytes_sent(p.work, policy)}};
}

std::string check_text(const TrainPlan& p, double tokens) {
  const plan::ParameterCount& count = p.work.parameters;
  const plan::Moment peak = plan::peak(p.work, p.policy);
  const double flops = p.student.total();
  return fmt::format("  {} parameters stored, {} expanded\n  {:.3g} FLOPs a token{}\n",
                     format_rate(static_cast<double>(count.stored)),
                     format_rate(static_cast<double>(count.expanded)), flops,
                     tokens > 0 ? fmt::format(", {:.3g} in all", flops * tokens) : "") +
         fmt::format("  {} of memory a rank in {}, highest at: {}\n", bytes_text(peak.memory.total()),
                     precision_name(p), peak.name);
}

}  // namespace

plan::StepTime TrainPlan::time() const {
  const double ranks = static_cast<double>(work.batch.ranks);
  return plan::step_time({.flops = flops_a_token() * static_cast<double>(batch_tokens) / ranks,
                          .bytes = plan::bytes_sent(work, policy),
                          .width = static_cast<double>(width),
                          .layers = std::max<int64_t>(layers, 1),
                          .micro_batches = work.batch.micro_batches,
                          .ranks = work.batch.ranks,
                          .bf16 = work.bf16},
                         device);
}

std::optional<TrainPlan> plan_train(const Recipe& recipe, const Stage& stage, int64_t ranks,
                                    const plan::Device& device) {
  const auto spec = student_shape(recipe, stage);
  if (!spec) return std::nullopt;
  const auto& data = stage.get<DataOptions>();
  const auto& train = stage.get<train::TrainOptions>();
  if (ranks == 0) ranks = stage.get<ParallelOptions>().ranks;
  const auto model = trained_shape(recipe, stage, *spec);
  const int64_t replicas = stage.get<ParallelOptions>().replicas;
  const plan::Batch batch{.rows = data.micro_batch,
                          .sequence = data.sequence,
                          .micro_batches = data.batch_tokens / (data.sequence * data.micro_batch * ranks),
                          .ranks = ranks,
                          .replicas = ranks % replicas == 0 ? replicas : 1,
                          .documents = data.isolates()};
  TrainPlan out{
      .stage = stage.name,
      .device = device,
      .work = plan::workload_of(*model, batch, precision_of(stage, in_bf16(train.precision, device))),
      .student = plan::flops_a_token(*model, data.sequence),
      .width = spec->width,
      .layers = spec->layers,
      .batch_tokens = data.batch_tokens};
  out.policy = plan::policy_of(stage.get<ParallelOptions>().shard);
  out.work.on_device = !device.shared;
  out.work.graph = out.work.on_device && repeats(stage, *model);
  out.work.validates = !data.validation.empty();
  out.work.starts_whole = !starts_divided(stage);
  if (!add_teachers(recipe, stage, *spec, out)) return std::nullopt;
  add_reference(stage, *model, out);
  const double tokens = trained_tokens(recipe, stage);
  out.steps = static_cast<int64_t>(std::ceil(tokens / static_cast<double>(data.batch_tokens)));
  out.work.copies_saves = train.save == "async" && device.shared;
  const int64_t every = train.checkpoint_every;
  out.work.saves_midway =
      (every > 0 && (out.steps == 0 || every < out.steps)) || (train.keep_best && train.validate_every > 0);
  return out;
}

std::string train_plan(const Recipe& recipe, const Stage& stage, int64_t ranks) {
  const auto& data = stage.get<DataOptions>();
  const auto& train = stage.get<train::TrainOptions>();
  const double tokens = trained_tokens(recipe, stage);
  const std::string length = train.epochs > 0
                                 ? fmt::format("{} epochs", train.epochs)
                                 : fmt::format("{} steps of {} tokens", train.steps, data.batch_tokens);
  const int64_t group = ranks > 0 ? ranks : stage.get<ParallelOptions>().ranks;
  std::string out = fmt::format("  {}{}; {} rank(s) of {} micro-batch(es)\n", length,
                                tokens > 0 ? fmt::format(", {} in all", format_rate(tokens)) : "", group,
                                data.batch_tokens / (data.sequence * data.micro_batch * group));
  const auto plan = plan_train(recipe, stage, ranks, plan::devices().at("cpu"));
  out += plan ? check_text(*plan, tokens) : "  model: " + stage.get<ModelOptions>().from + "\n";
  const bool here = !recipe.run.device.starts_with("cuda");  // retort plan --device has the memory of others
  if (const std::string misfit = plan && here ? remedy_text(*plan) : ""; !misfit.empty())
    out += "  warning:" + misfit.substr(1);
  if (!stage.get<DistillSection>()) return out;
  const auto cost = distill_cost(recipe, stage);
  return out + (cost ? distill_cost_table(*cost) : "  teacher: its cost is known once its files are there\n");
}

std::string plan_text(const TrainPlan& p) {
  const plan::Batch& batch = p.work.batch;
  return fmt::format("{}: {} rank(s) of {} ({}) in {}, {} micro-batch(es) of {} x {} tokens each\n", p.stage,
                     batch.ranks, p.device.name, p.device.what, precision_name(p), batch.micro_batches,
                     batch.rows, batch.sequence) +
         parameters_text(p) + flops_text(p) + memory_text(p) + remedy_text(p) + time_text(p);
}

Json plan_json(const TrainPlan& p) {
  const plan::ParameterCount& count = p.work.parameters;
  const plan::StepTime time = p.time();
  const double ranks = static_cast<double>(p.work.batch.ranks), devices = p.device.shared ? 1 : ranks;
  const double tokens_a_second = static_cast<double>(p.batch_tokens) / time.total();
  Json memory = Json::array();
  for (const Policy policy : policies_of(p)) memory.push_back(memory_json(p, policy));
  const plan::Remedy remedy =
      plan::fits(p.work, p.device, p.policy) ? plan::Remedy{} : plan::remedy(p.work, p.device, p.policy);
  Json sharding;
  if (remedy.sharding)
    sharding = {{"policy", plan::policy_name(remedy.sharding->policy)},
                {"ranks", remedy.sharding->ranks},
                {"micro_batch", remedy.sharding->rows}};
  return {{"stage", p.stage},
          {"device", p.device.name},
          {"device_bytes_of_a_rank", p.device.memory_of_rank(p.work.batch.ranks)},
          {"ranks", p.work.batch.ranks},
          {"precision", precision_name(p)},
          {"micro_batches", p.work.batch.micro_batches},
          {"parameters",
           {{"stored", count.stored},
            {"expanded", count.expanded},
            {"trained", count.trained()},
            {"frozen", count.frozen()}}},
          {"flops_a_token",
           {{"convention", "6 N' + 12 L H K T"},
            {"products", p.student.products},
            {"attention", p.student.attention},
            {"teacher", p.teacher_flops},
            {"total", p.flops_a_token()}}},
          {"memory", memory},
          {"would_fit", {{"micro_batch", remedy.rows ? Json(*remedy.rows) : Json()}, {"sharding", sharding}}},
          {"time",
           {{"seconds_a_step", time.total()},
            {"exposed_seconds_a_step", time.exposed},
            {"tokens_a_second", tokens_a_second},
            {"efficiency", time.efficiency},
            {"peak_flops", p.device.rate(p.work.bf16)},
            {"steps", p.steps},
            {"seconds", static_cast<double>(p.steps) * time.total()},
            {"device_hours", static_cast<double>(p.steps) * time.total() * devices / 3600},
            {"source", p.device.source}}}};
}

}  // namespace retort::recipes
