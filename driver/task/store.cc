#include "driver/task/store.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "driver/base/clock.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/status.h"
#include "driver/config/task_config.h"
#include "driver/jvm/class_data.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/image_base.h"
#include "driver/task/disk_space.h"
#include "driver/task/host_limits.h"
#include "driver/task/host_load.h"
#include "driver/task/leftovers.h"
#include "driver/task/plan.h"
#include "driver/task/record.h"
#include "driver/task/remains.h"
#include "driver/task/request_check.h"
#include "driver/task/sandbox_file.h"
#include "driver/task/state_dir.h"
#include "driver/task/user.h"

namespace jenkins_agent {
namespace {

using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

// A sandbox takes milliseconds; a host that is this slow has another problem.
constexpr std::chrono::seconds kStartLimit{60};
// Longer than any one call to a supervisor.
constexpr std::chrono::seconds kRecoverLimit{30};

// On a file system that has become read-only an earlier plugin's has to do: its tasks still run,
// and to take them up nothing need be written.
absl::StatusOr<Fd> OpenOwnerLock(const std::string& path) {
  absl::StatusOr<Fd> lock = OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
  if (lock.ok()) return lock;
  absl::StatusOr<Fd> earlier = OpenFile(path, O_RDONLY | O_NOFOLLOW);
  return earlier.ok() ? std::move(earlier) : std::move(lock);
}

absl::StatusOr<Fd> BecomeOwner(const std::string& path) {
  ASSIGN_OR_RETURN(Fd lock, OpenOwnerLock(path));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(absl::StrCat("lock ", path));
    const absl::StatusOr<std::string> owner = ReadAll(lock.get(), 32);
    return absl::AlreadyExistsError(
        absl::StrCat(path, " is held by another plugin, pid ", owner.value_or("unknown"),
                     "; give each Nomad agent on this host a state_dir of its own"));
  }
  // Only for the message above: a full disk must not keep a new plugin from its running tasks.
  const std::string pid = absl::StrCat(::getpid());
  if (!WriteAll(lock.get(), pid).ok() || ::ftruncate(lock.get(), pid.size()) != 0) {
    Log(LogLevel::kWarn, "cannot write the owner's pid", {{"path", path}});
  }
  return lock;
}

// The payload inherits it through spawner and supervisor.
uint64_t StackLimit() {
  rlimit limit;
  return ::getrlimit(RLIMIT_STACK, &limit) == 0 ? limit.rlim_cur : 0;
}

int64_t UsableCores() {
  cpu_set_t cores;
  return ::sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

// What the host can still give, before anything is made.
absl::Status CheckRoom(const pb::CgroupSpec& cgroup, const std::string& alloc_dir,
                       const TaskStore::Options& options) {
  ASSIGN_OR_RETURN(const HostLoad load, ReadHostLoad(options.proc_root));
  RETURN_IF_ERROR(CheckHostLoad(load, cgroup.memory_bytes()));
  RETURN_IF_ERROR(CheckDiskSpace("state_dir", options.config.state_dir));
  RETURN_IF_ERROR(CheckDiskSpace("alloc_dir", alloc_dir));
  return cgroup.io_weight() > 0 ? CheckIoWeight(options.sys_root) : absl::OkStatus();
}

// `image`: null: the host's programs.
absl::StatusOr<pb::UserSpec> UserOfTask(const std::string& name, const TaskImage* image,
                                        bool allow_root) {
  if (image == nullptr) return ResolveUser(name, allow_root);
  return ResolveImageUser(name, image->config.user, image->passwd, image->group, allow_root);
}

bool NeedsNodeJava(const TaskConfig& options, const TaskImage* image) {
  if (!options.command.empty()) return false;
  return image == nullptr || image->javas.empty() || !options.java_version.empty();
}

pb::TaskRecord MakeRecord(const NomadTask& config, const pb::LaunchSpec& spec,
                          const pb::TaskStatus& status, const std::string& boot_id,
                          bool own_resolv_conf) {
  pb::TaskRecord record;
  record.set_version(kRecordVersion);
  record.set_task_id(config.id());
  record.set_task_dir(spec.task_dir());
  record.set_boot_id(boot_id);
  record.set_supervisor_pid(status.supervisor_pid());
  record.set_supervisor_start_time(ProcessStartTime(status.supervisor_pid()).value_or(0));
  *record.mutable_cgroup_dirs() = status.cgroup_dirs();
  record.set_alloc_id(config.alloc_id());
  record.set_task_name(config.name());
  record.set_started_at_ns(status.started_at_ns());
  record.set_network_namespace(spec.sandbox().network_namespace());
  if (own_resolv_conf) {
    record.set_resolv_conf(absl::StrCat(spec.task_dir(), "/", kResolvConf));
  }
  return record;
}

absl::Status MakeTaskDir(const std::string& task_dir, bool has_agent,
                         const std::string& resolv_conf) {
  RETURN_IF_ERROR(MakeDirs(task_dir, 0700));
  // Read by the payload's user through a bind mount, hence not 0700 as what is around it.
  if (has_agent) RETURN_IF_ERROR(MakeDirs(StatePaths::JarDir(task_dir), 0755));
  if (resolv_conf.empty()) return absl::OkStatus();
  return WriteFileAtomic(absl::StrCat(task_dir, "/", kResolvConf), resolv_conf, 0644);
}

bool SharesClassData(const pb::LaunchSpec& spec) {
  const auto& options = spec.agent().jvm_options();
  return std::find(options.begin(), options.end(), ClassDataOption()) != options.end();
}

// Of the series jenkins_agent_starts_total.
absl::string_view StartResult(const absl::Status& status) {
  if (status.ok()) return "started";
  if (absl::IsResourceExhausted(status)) return "no_room";
  const bool refused = absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
                       absl::IsPermissionDenied(status);
  return refused ? "refused" : "failed";
}

absl::Status WriteHandle(const pb::TaskRecord& record) {
  ASSIGN_OR_RETURN(const Fd dir, OpenFile(record.task_dir(), O_RDONLY | O_DIRECTORY));
  return ReplaceFileAt(dir.get(), kHandleFile, record.SerializeAsString());
}

}  // namespace

TaskStore::TaskStore(Options options, Fd lock, std::unique_ptr<TaskFilters> filters)
    : options_(std::move(options)),
      paths_(options_.config.state_dir),
      owner_lock_(std::move(lock)),
      host_entries_(HostPlacesOf("/")),
      filters_(std::move(filters)) {}

absl::StatusOr<std::unique_ptr<TaskStore>> TaskStore::Open(Options options) {
  const StatePaths paths(options.config.state_dir);
  RETURN_IF_ERROR(MakeDirs(paths.root(), 0700), "state_dir");
  ASSIGN_OR_RETURN(Fd lock, BecomeOwner(paths.OwnerLock()), "state_dir");
  RETURN_IF_ERROR(MakeDirs(paths.Tasks(), 0700), "state_dir");
  RETURN_IF_ERROR(MakeDirs(paths.AgentJarCache(), 0755), "state_dir");
  ASSIGN_OR_RETURN(const std::string boot_id, BootId());
  auto filters = std::make_unique<TaskFilters>();
  const std::shared_ptr<const Filters> usual = filters->Get({}, /*userns=*/false);
  options.shared.archives = ClassArchives::Open({.loop = options.shared.loop,
                                                 .cleaner = options.shared.cleaner,
                                                 .spawner = options.spawner,
                                                 .paths = paths,
                                                 .boot_id = boot_id,
                                                 .payload_filter = usual->payload,
                                                 .init_filter = usual->init});
  absl::StatusOr<std::unique_ptr<OomOrder>> oom_order = OomOrder::Create(options.shared.loop);
  if (oom_order.ok()) {
    options.shared.oom_order = *std::move(oom_order);
  } else {
    Log(LogLevel::kWarn, "builds are not preferred by the OOM killer",
        {{"error", std::string(oom_order.status().message())}});
  }
  std::unique_ptr<TaskStore> store(
      new TaskStore(std::move(options), std::move(lock), std::move(filters)));
  store->boot_id_ = boot_id;
  ClearLeftovers(store->paths_, store->boot_id_);
  const ImagesBlock& images = store->options_.config.images;
  store->images_ =
      std::make_shared<TaskImages>(TaskImages::Options{.config = images,
                                                       .dir = ImagesDir(images, store->paths_),
                                                       .loop = store->options_.shared.loop,
                                                       .cleaner = store->options_.shared.cleaner,
                                                       .tools = store->options_.shared.tools,
                                                       .metrics = store->options_.shared.metrics});
  store->images_->Begin();
  return store;
}

absl::Status TaskStore::Reserve(const std::string& task_id) {
  MutexLock lock(mutex_);
  if (tasks_.contains(task_id) || !reserved_.insert(task_id).second) {
    return absl::AlreadyExistsError(absl::StrCat("task with ID \"", task_id, "\" already started"));
  }
  return absl::OkStatus();
}

void TaskStore::Release(const std::string& task_id) {
  MutexLock lock(mutex_);
  reserved_.erase(task_id);
  released_.NotifyAll();
}

absl::StatusOr<bool> TaskStore::ReserveForRecovery(const std::string& task_id) {
  const auto deadline = std::chrono::steady_clock::now() + kRecoverLimit;
  MutexLock lock(mutex_);
  for (;;) {
    if (tasks_.contains(task_id)) return false;
    if (reserved_.insert(task_id).second) return true;
    if (!released_.WaitUntil(mutex_, deadline)) {
      return absl::DeadlineExceededError(
          absl::StrCat("task ", task_id, ": another start or recovery of it hangs"));
    }
  }
}

absl::StatusOr<std::string> TaskStore::Start(const NomadTask& config, int64_t received_ns) {
  absl::StatusOr<std::string> started = TryToStart(config, received_ns);
  options_.shared.metrics->Count(Metric::kStarts, StartResult(started.status()));
  return started;
}

absl::StatusOr<std::string> TaskStore::TryToStart(const NomadTask& config, int64_t received_ns) {
  RETURN_IF_ERROR(CheckStartRequest(config));
  RETURN_IF_ERROR(Reserve(config.id()));
  const absl::Cleanup release = [&] { Release(config.id()); };
  FaultPoint("plugin.start.reserved");
  ASSIGN_OR_RETURN(const std::shared_ptr<Task> task, Launch(config, received_ns));
  MutexLock lock(mutex_);
  tasks_[config.id()] = task;
  return task->record().SerializeAsString();
}

absl::StatusOr<std::optional<TaskStore::ImageOfTask>> TaskStore::TakeImage(
    const NomadTask& config, const TaskConfig& task_config) {
  if (task_config.image.image.empty()) return std::nullopt;
  const auto tell = [&](std::string message) {
    options_.shared.events->Publish({.task_id = config.id(),
                                     .alloc_id = config.alloc_id(),
                                     .task_name = config.name(),
                                     .time_ns = absl::GetCurrentTimeNanos(),
                                     .message = std::move(message),
                                     .details = {}});
  };
  const std::string task_dir = paths_.Task(config.id());
  RETURN_IF_ERROR(MakeDirs(task_dir, 0700));  // the lease is good for as long as it is there
  ASSIGN_OR_RETURN(TaskImages::Taken taken, images_->Take({.task_id = config.id(),
                                                           .task_dir = task_dir,
                                                           .image = task_config.image,
                                                           .tell = tell}));
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> images, Store::Open(images_->dir()));
  ASSIGN_OR_RETURN(TaskImage image,
                   ReadTaskImage(*images, taken.image, taken.name, task_config.java_home));
  return ImageOfTask{std::move(image), std::move(taken.story)};
}

absl::StatusOr<std::shared_ptr<Task>> TaskStore::Launch(const NomadTask& config,
                                                        int64_t received_ns) {
  RETURN_IF_ERROR(CheckStateDir(paths_.root()));
  const std::string task_dir = paths_.Task(config.id());
  // Nomad repeats StartTask with the same id when the plugin died in the middle of the first.
  RETURN_IF_ERROR(Destroy(config.id(), /*force=*/true), "left over from an earlier start");

  ASSIGN_OR_RETURN(const TaskConfig task_config, DecodeTaskConfig(config.msgpack_driver_config()));
  // A supervisor that reports an error has cleaned up after itself; one that died has not.
  absl::Cleanup remove = [&] {
    if (const absl::Status removed = RemoveFromDisk(task_dir, paths_, boot_id_); !removed.ok()) {
      Log(LogLevel::kError, "failed start: not all could be removed",
          {{"task_id", config.id()}, {"error", std::string(removed.message())}});
    }
    if (!task_config.image.image.empty()) images_->GiveBack(config.id());
  };
  const int64_t asked_ns = MonotonicNs();
  ASSIGN_OR_RETURN(const std::optional<ImageOfTask> taken, TakeImage(config, task_config));
  received_ns += MonotonicNs() - asked_ns;  // told on its own
  const TaskImage* image = taken.has_value() ? &taken->image : nullptr;
  PlanInput input{.options = task_config, .task = config, .filters = *filters_};
  ASSIGN_OR_RETURN(input.user, UserOfTask(config.user(), image, options_.config.allow_root));
  input.task_dir = task_dir;
  if (NeedsNodeJava(task_config, image)) {
    ASSIGN_OR_RETURN(input.javas, FindJavaHomes(options_.config.java_homes));
  }
  input.image = image;
  input.own_log_files = options_.config.log_collection == kLogCollectionDriver;
  input.logs = options_.config.logs;
  input.policy = options_.config.isolation;
  input.host = ReadHostLimits();
  input.host_entries = host_entries_.Get(RealtimeNs());
  input.stack_limit = StackLimit();
  input.host_cores = UsableCores();
  input.read_secret_file = [&](const std::string& path) {
    return ReadSandboxFile(path, config.alloc_dir(), config.name());
  };
  ASSIGN_OR_RETURN(pb::LaunchSpec spec, PlanTask(input));
  spec.set_boot_id(boot_id_);

  RETURN_IF_ERROR(CheckRoom(spec.cgroup(), config.alloc_dir(), options_));
  const std::string resolv_conf = ResolvConf(config, input.host.resolv_conf);
  const bool gets_jar = spec.has_agent() && !spec.agent().own_command();
  RETURN_IF_ERROR(MakeTaskDir(task_dir, gets_jar, resolv_conf));
  if (image != nullptr) {
    RETURN_IF_ERROR(MakeImageBase(*spec.mutable_sandbox()), "image ", image->name);
  }
  if (SharesClassData(spec)) {
    RETURN_IF_ERROR(WriteVmOptions(task_dir, ""));
  }
  FaultPoint("plugin.start.directory_made");
  absl::StatusOr<Fd> connection = options_.spawner->Spawn(spec, received_ns);
  if (!connection.ok()) return TellProcessLimit(connection.status());
  FaultPoint("plugin.start.spawned");
  const absl::StatusOr<pb::TaskStatus> started = AwaitStart(connection->get(), kStartLimit);
  if (!started.ok()) return TellProcessLimit(started.status());
  const pb::TaskStatus& status = *started;
  FaultPoint("plugin.start.answered");
  pb::TaskRecord record = MakeRecord(config, spec, status, boot_id_, !resolv_conf.empty());
  if (image != nullptr) record.set_image(image->manifest.ToString());
  RETURN_IF_ERROR(WriteHandle(record));
  FaultPoint("plugin.start.handle_written");
  AgentStart agent;
  agent.job = absl::StrCat(config.namespace_(), "/", config.job_id());
  agent.class_data_sharing = SharesClassData(spec);
  agent.java_homes.assign(spec.agent().java_homes().begin(), spec.agent().java_homes().end());
  auto task = std::make_shared<Task>(record, options_.shared, std::move(agent),
                                     taken.has_value() ? taken->story : "");
  RETURN_IF_ERROR(task->Attach(*std::move(connection)));
  FaultPoint("plugin.start.attached");
  std::move(remove).Cancel();
  Log(LogLevel::kInfo, "task started",
      {{"task_id", config.id()},
       {"supervisor", absl::StrCat(record.supervisor_pid())},
       {"sandbox_ms", absl::StrCat(status.timings().sandbox_ms())}});
  return task;
}

absl::StatusOr<std::shared_ptr<Task>> TaskStore::Find(const std::string& task_id) const {
  MutexLock lock(mutex_);
  const auto it = tasks_.find(task_id);
  if (it == tasks_.end()) {
    return absl::NotFoundError(absl::StrCat("task with ID \"", task_id, "\" is not known"));
  }
  return it->second;
}

std::vector<std::shared_ptr<Task>> TaskStore::Tasks() const {
  std::vector<std::shared_ptr<Task>> tasks;
  MutexLock lock(mutex_);
  for (const auto& [id, task] : tasks_) tasks.push_back(task);
  return tasks;
}

absl::Status TaskStore::Recover(const std::string& task_id, absl::string_view driver_state) {
  const absl::Status recovered = TryToRecover(task_id, driver_state);
  options_.shared.metrics->Count(Metric::kRecoveries, recovered.ok() ? "recovered" : "failed");
  return recovered;
}

absl::Status TaskStore::TryToRecover(const std::string& task_id, absl::string_view driver_state) {
  ASSIGN_OR_RETURN(const bool reserved, ReserveForRecovery(task_id));
  if (!reserved) return absl::OkStatus();
  const absl::Cleanup release = [&] { Release(task_id); };
  ASSIGN_OR_RETURN(const pb::TaskRecord record, DecodeRecord(driver_state, paths_, boot_id_),
                   "task ", task_id);
  if (record.task_id() != task_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "driver_state belongs to task \"", record.task_id(), "\", not to \"", task_id, "\""));
  }
  FaultPoint("plugin.recover.decoded");
  ASSIGN_OR_RETURN(const std::shared_ptr<Task> task, Reconnect(record), "task ", task_id);
  FaultPoint("plugin.recover.attached");
  MutexLock lock(mutex_);
  tasks_.emplace(task_id, task);
  return absl::OkStatus();
}

// A supervisor that listens: it runs. Exit record on disk: it has ended. Neither: it is lost.
absl::StatusOr<std::shared_ptr<Task>> TaskStore::Reconnect(const pb::TaskRecord& record) {
  auto task = std::make_shared<Task>(record, options_.shared);
  absl::StatusOr<Fd> connection = ConnectToSupervisor(record.task_dir());
  if (connection.ok()) {
    task->Follow(*std::move(connection));
    return task;
  }
  // Looked at last: a supervisor writes the record before it lets go of its socket.
  ASSIGN_OR_RETURN(std::optional<pb::ExitRecord> exit, ReadExitRecord(record.task_dir()));
  if (!exit.has_value() && !SupervisorGone(record)) {
    return absl::InternalError(
        absl::StrCat("supervisor ", record.supervisor_pid(),
                     " runs but cannot be reached: ", connection.status().message()));
  }
  if (!exit.has_value()) {  // it may have ended in order since
    ASSIGN_OR_RETURN(exit, ReadExitRecord(record.task_dir()));
  }
  task->SetExited(exit.has_value() ? *exit : EndAsLost(record));
  return task;
}

void TaskStore::GiveUpImage(const std::string& task_id) { images_->GiveUp(task_id); }

absl::Status TaskStore::Destroy(const std::string& task_id, bool force) {
  RETURN_IF_ERROR(Remove(task_id, force));
  images_->GiveBack(task_id);
  return absl::OkStatus();
}

absl::Status TaskStore::Remove(const std::string& task_id, bool force) {
  if (const auto task = Find(task_id); task.ok()) {
    if (!(*task)->exited()) {
      if (!force) {
        return absl::FailedPreconditionError(
            absl::StrCat("task with ID \"", task_id, "\" is still running"));
      }
      MarkForRemoval((*task)->record().task_dir());
      if (!(*task)->Stop(SIGKILL, std::chrono::milliseconds(0)).ok()) {
        // By the task and not below: both would clean up at the same time.
        RETURN_IF_ERROR((*task)->KillSupervisor());
      }
    }
    RETURN_IF_ERROR(RemoveRemains((*task)->record()));
    MutexLock lock(mutex_);
    tasks_.erase(task_id);
    return absl::OkStatus();
  }
  // Not ours, or an earlier plugin's: the disk knows.
  return RemoveFromDisk(paths_.Task(task_id), paths_, boot_id_);
}

}  // namespace jenkins_agent
