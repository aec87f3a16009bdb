#include "driver/service/runtime.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/paths.h"
#include "driver/base/recoverable.h"
#include "driver/base/status.h"
#include "driver/base/subprocess.h"
#include "driver/config/value_checks.h"
#include "driver/service/fingerprint.h"
#include "driver/task/state_dir.h"

namespace jenkins_agent {
namespace {

Runtime::Compute ComputeOf(const Runtime::NomadConfig& nomad_config) {
  const auto& topology = nomad_config.driver().topology();
  Runtime::Compute compute;
  compute.cores = topology.cores_size();
  for (const auto& core : topology.cores()) {
    const uint64_t speeds[] = {core.guess_speed(), core.max_speed(), core.base_speed()};
    for (const uint64_t mhz : speeds) {
      if (mhz == 0) continue;
      compute.total_mhz += mhz;
      break;
    }
  }
  if (topology.override_total_compute() > 0) compute.total_mhz = topology.override_total_compute();
  return compute;
}

}  // namespace

Runtime::~Runtime() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    if (loop_ != nullptr) loop_->Quit();
    if (cleaner_ != nullptr) cleaner_->Quit();
    threads.swap(loop_threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

absl::Status Runtime::Configure(const std::string& msgpack,
                                const std::optional<NomadConfig>& nomad_config) {
  ASSIGN_OR_RETURN(PluginConfig config, DecodePluginConfig(msgpack));
  RETURN_IF_ERROR(CheckImageNames(config.images));
  MutexLock lock(mutex_);
  config_ = std::move(config);
  if (!nomad_config.has_value()) return absl::OkStatus();
  compute_ = ComputeOf(*nomad_config);
  const absl::Status started = StartUp();
  if (!IsRecoverable(started)) return started;
  // An error would make Nomad drop the driver until it is restarted, and tell only its log why.
  Log(LogLevel::kError, "no task can be started", {{"error", std::string(started.message())}});
  return absl::OkStatus();
}

absl::Status Runtime::StartUp() {
  if (store_ != nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(StartLoop(loop_));
  RETURN_IF_ERROR(StartLoop(cleaner_));
  RETURN_IF_ERROR(LoadTools());
  tools_.cache_dir = StatePaths(config_.state_dir).AgentJarCache();
  if (spawner_ == nullptr) {
    ASSIGN_OR_RETURN(Fd program, MakeSealedMemfd("jenkins-agent-supervisor", programs_.supervisor));
    ASSIGN_OR_RETURN(spawner_, Spawner::Start(std::move(program)), "spawner");
  }
  RETURN_IF_ERROR(OpenStore());
  metrics_.Set(Metric::kBuildInfo, kDriverVersion, 1);
  if (const absl::Status served = ServeMetrics(); !served.ok()) {
    Log(LogLevel::kError, "metrics are not served", {{"error", std::string(served.message())}});
  }
  return absl::OkStatus();
}

absl::Status Runtime::OpenStore() {
  TaskStore::Options options;
  options.config = config_;
  options.shared = {loop_.get(), cleaner_.get(), &events_, &tools_, &metrics_};
  options.spawner = spawner_.get();
  absl::StatusOr<std::unique_ptr<TaskStore>> store = TaskStore::Open(std::move(options));
  if (store.ok()) {
    store_ = *std::move(store);
    state_trouble_.clear();
    return absl::OkStatus();
  }
  state_trouble_ = StateDirTrouble(config_.state_dir);
  if (state_trouble_.empty()) {
    state_trouble_ = absl::StrCat("cannot be used: ", store.status().message());
  }
  if (absl::IsAlreadyExists(store.status())) return store.status();  // a wrong configuration
  return MakeRecoverable(absl::FailedPreconditionError(
      absl::StrCat("state_dir ", config_.state_dir, " ", state_trouble_)));
}

std::string Runtime::StateTrouble() {
  MutexLock lock(mutex_);
  if (!state_trouble_.empty()) StartUp().IgnoreError();
  return state_trouble_;
}

// Behind the store: of the plugins that Nomad launches only the one that owns the state directory
// comes here.
absl::Status Runtime::ServeMetrics() {
  if (!config_.metrics.present) return absl::OkStatus();
  MetricsFeed::Options options;
  options.loop = loop_.get();
  options.worker = cleaner_.get();
  options.metrics = &metrics_;
  options.store = store_.get();
  ASSIGN_OR_RETURN(options.address, ListenAddress(config_.metrics.listen));
  ASSIGN_OR_RETURN(options.program, MakeSealedMemfd("jenkins-agent-exporter", programs_.exporter));
  metrics_feed_ = std::make_unique<MetricsFeed>(std::move(options));
  loop_->Post([feed = metrics_feed_.get()] { feed->Launch(); });
  return absl::OkStatus();
}

absl::Status Runtime::StartLoop(std::unique_ptr<EventLoop>& loop) {
  if (loop != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(loop, EventLoop::Create());
  loop_threads_.emplace_back([loop = loop.get()] { loop->Run(); });
  return absl::OkStatus();
}

absl::Status Runtime::LoadTools() {
  if (tools_.executable) return absl::OkStatus();
  ASSIGN_OR_RETURN(tools_.executable, MakeSealedMemfd("jenkins-agent-tools", programs_.tools));
  return absl::OkStatus();
}

absl::StatusOr<TaskStore*> Runtime::Store() {
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(StartUp());
  return store_.get();
}

absl::StatusOr<EventLoop*> Runtime::Loop() {
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(StartLoop(loop_));
  return loop_.get();
}

absl::StatusOr<EventLoop*> Runtime::Worker() {
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(StartLoop(cleaner_));
  return cleaner_.get();
}

PluginConfig Runtime::config() const {
  MutexLock lock(mutex_);
  return config_;
}

Runtime::Compute Runtime::compute() const {
  MutexLock lock(mutex_);
  return compute_;
}

absl::Status Runtime::CheckTools() {
  int program;
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(LoadTools());
    program = tools_.executable.get();
  }
  RunOptions options;
  options.timeout = std::chrono::seconds(10);
  ASSIGN_OR_RETURN(const RunResult result,
                   Run({absl::StrCat("/proc/self/fd/", program), "version"}, options), "tools");
  if (result.exit.exit_code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("tools: ", absl::StripAsciiWhitespace(result.error_tail)));
}

}  // namespace jenkins_agent
