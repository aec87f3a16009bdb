#include "driver/task/class_archives.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/agent/command.h"
#include "driver/base/clock.h"
#include "driver/base/digest.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/jvm/class_data.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/template_plan.h"
#include "driver/supervisor/protocol.h"
#include "driver/task/remains.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

// No id of Nomad's: those have slashes.
constexpr char kTaskId[] = "class-data archive";
constexpr char kOutDir[] = "/out";  // of the task directory; /local in the sandbox
constexpr uint32_t kNobody = 65534;
constexpr int64_t kMemoryBytes = int64_t{512} << 20;
constexpr int64_t kPids = 256;
constexpr int64_t kCpuShares = 2;  // the fewest there are: builds go first
constexpr uint64_t kTmpBytes = uint64_t{64} << 20;
constexpr std::chrono::seconds kMakeLimit{120};
constexpr std::chrono::seconds kCallTimeout{10};
constexpr size_t kNameBytes = 32;
constexpr size_t kMaxFailed = 256;

absl::StatusOr<std::string> DigestOf(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxClassArchiveBytes));
  return Sha256Hex(content).substr(0, kNameBytes);
}

}  // namespace

absl::Status WriteVmOptions(const std::string& task_dir, absl::string_view content) {
  ASSIGN_OR_RETURN(const Fd directory,
                   OpenFile(StatePaths::JarDir(task_dir), O_RDONLY | O_DIRECTORY));
  return ReplaceFileAt(directory.get(), kVmOptionsFile, content, 0644);
}

std::shared_ptr<ClassArchives> ClassArchives::Open(Options options) {
  std::shared_ptr<ClassArchives> archives(new ClassArchives(std::move(options)));
  archives->options_.cleaner->Post([weak = archives->weak_from_this()] {
    if (const auto self = weak.lock()) self->LoadKept();
  });
  return archives;
}

absl::StatusOr<std::string> ClassArchives::KeyOf(const std::string& java_home,
                                                 const std::string& jar_sha256) const {
  ASSIGN_OR_RETURN(const std::string identity, ClassDataIdentity(java_home, jar_sha256));
  return Sha256Hex(absl::StrCat(java_home, "\n", identity)).substr(0, kNameBytes);
}

std::string ClassArchives::Find(const std::string& java_home, const std::string& jar_sha256) {
  const absl::StatusOr<std::string> key = KeyOf(java_home, jar_sha256);
  if (!key.ok()) return "";
  std::string path;
  {
    MutexLock lock(mutex_);
    const auto found = kept_.find(*key);
    if (found == kept_.end()) return "";
    path = found->second;
  }
  // Used just now: Prune() goes by it.
  if (::utimensat(AT_FDCWD, path.c_str(), nullptr, 0) != 0) return "";
  return path;
}

void ClassArchives::Make(const pb::JavaHome& java, const pb::JarInfo& jar,
                         const std::string& jar_file) {
  options_.cleaner->Post([weak = weak_from_this(), java, jar, jar_file] {
    if (const auto self = weak.lock()) self->Begin(java, jar, jar_file);
  });
}

// Of another boot: nobody knows what a power cut left of them.
void ClassArchives::LoadKept() {
  const std::string mine = options_.paths.ClassArchives(options_.boot_id);
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options_.paths.ClassArchives(), error)) {
    if (entry.path() != mine) RemoveTree(entry.path()).IgnoreError();
  }
  for (const auto& entry : fs::directory_iterator(mine, error)) {
    const std::string& path = entry.path().native();
    const std::vector<std::string> parts =
        absl::StrSplit(entry.path().filename().native(), '.');  // KEY.DIGEST.jsa
    const absl::StatusOr<std::string> digest = DigestOf(path);
    if (parts.size() != 3 || !digest.ok() || *digest != parts[1]) {
      Log(LogLevel::kWarn, "a damaged class-data archive is removed", {{"path", path}});
      ::unlink(path.c_str());
      continue;
    }
    MutexLock lock(mutex_);
    kept_[parts[0]] = path;
  }
}

void ClassArchives::Begin(const pb::JavaHome& java, const pb::JarInfo& jar,
                          const std::string& jar_file) {
  const absl::StatusOr<std::string> key = KeyOf(java.path(), jar.sha256());
  if (!key.ok() || !making_.key.empty() || failed_.contains(*key)) return;
  if (!Find(java.path(), jar.sha256()).empty()) return;
  making_.key = *key;
  const absl::Status started = Start(java, jar, jar_file);
  if (started.ok()) return;
  Log(LogLevel::kWarn, "class-data archive", {{"error", std::string(started.message())}});
  Finish();
}

absl::Status ClassArchives::Start(const pb::JavaHome& java, const pb::JarInfo& jar,
                                  const std::string& jar_file) {
  const std::string task_dir = options_.paths.Task(kTaskId);
  RETURN_IF_ERROR(RemoveFromDisk(task_dir, options_.paths, options_.boot_id));
  RETURN_IF_ERROR(MakeDirs(task_dir, 0700));
  MarkForRemoval(task_dir);  // by the next plugin, should this one die meanwhile
  RETURN_IF_ERROR(MakeDirs(StatePaths::JarDir(task_dir), 0755));
  RETURN_IF_ERROR(MakeDirs(task_dir + kOutDir, 0700));
  if (::chown((task_dir + kOutDir).c_str(), kNobody, kNobody) != 0) return ErrnoStatus("chown");
  const std::string link = absl::StrCat(StatePaths::JarDir(task_dir), "/", kAgentJar);
  if (::link(jar_file.c_str(), link.c_str()) != 0) return ErrnoStatus(absl::StrCat("link ", link));
  ASSIGN_OR_RETURN(const pb::LaunchSpec spec, Plan(java, jar));
  ASSIGN_OR_RETURN(Fd connection, options_.spawner->Spawn(spec, MonotonicNs()));

  // Both ways of its end come in on the loop's thread.
  const auto finish = [weak = weak_from_this(), cleaner = options_.cleaner] {
    cleaner->Post([weak] {
      if (const auto self = weak.lock()) self->Finish();
    });
  };
  Control::Handlers handlers;
  handlers.on_event = [](const pb::Event&) {};
  handlers.on_exit = [finish](const pb::ExitRecord&) { finish(); };
  handlers.on_lost = finish;
  making_.control = Control::Create(options_.loop, std::move(connection), std::move(handlers));
  making_.deadline = options_.cleaner->After(kMakeLimit, finish);
  pb::ControlRequest hello;
  hello.mutable_hello()->set_version(kSpecVersion);
  hello.mutable_hello()->set_watch(true);
  hello.mutable_hello()->set_look_only(true);  // nobody takes it up: it ends with this plugin
  making_.control->Call(
      std::move(hello), [](const absl::StatusOr<pb::ControlReply>&) {}, kCallTimeout);
  return absl::OkStatus();
}

absl::StatusOr<pb::LaunchSpec> ClassArchives::Plan(const pb::JavaHome& java,
                                                   const pb::JarInfo& jar) const {
  const std::string task_dir = options_.paths.Task(kTaskId);
  pb::LaunchSpec spec;
  spec.set_version(kSpecVersion);
  spec.set_task_id(kTaskId);
  spec.set_task_dir(task_dir);
  spec.set_boot_id(options_.boot_id);
  spec.mutable_user()->set_uid(kNobody);
  spec.mutable_user()->set_gid(kNobody);
  spec.mutable_user()->set_name("nobody");
  spec.mutable_user()->set_home("/local");
  spec.mutable_output()->set_stdout_path("/dev/null");
  spec.mutable_output()->set_stderr_path("/dev/null");
  pb::CgroupSpec& cgroup = *spec.mutable_cgroup();
  cgroup.set_name(
      absl::StrCat("class-archive.", Sha256Hex(options_.paths.root()).substr(0, kNameBytes)));
  cgroup.set_memory_bytes(kMemoryBytes);
  cgroup.set_pids(kPids);
  cgroup.set_cpu_shares(kCpuShares);

  HostRootfs rootfs;
  rootfs.local_dir = task_dir + kOutDir;
  rootfs.jar_dir = StatePaths::JarDir(task_dir);
  if (!absl::StartsWith(java.path(), "/usr/")) rootfs.extra_read_only.push_back(java.path());
  rootfs.uid = rootfs.gid = kNobody;
  rootfs.user_name = "nobody";
  rootfs.home = "/local";
  rootfs.hostname = "class-archive";
  rootfs.tmp_size_bytes = kTmpBytes;
  ASSIGN_OR_RETURN(const std::vector<pb::MountSpec> mounts, PlanHostRootfs(rootfs));
  pb::SandboxSpec& sandbox = *spec.mutable_sandbox();
  for (const pb::MountSpec& mount : mounts) *sandbox.add_mounts() = mount;
  for (const std::string& path : DefaultMaskedPaths()) sandbox.add_masked_paths(path);
  for (const std::string& path : DefaultReadOnlyPaths()) sandbox.add_read_only_paths(path);
  sandbox.set_hostname(rootfs.hostname);
  sandbox.set_own_network(true);
  sandbox.set_payload_filter(options_.payload_filter);
  sandbox.set_init_filter(options_.init_filter);
  *spec.mutable_root_template() = TakeTemplate(sandbox, spec.user());

  // An agent whose controller refuses the connection: it loads what an agent loads up to there, and
  // then exits by itself.
  pb::AgentSpec agent;
  agent.add_urls("http://127.0.0.1:9/");
  agent.set_name("class-archive");
  agent.set_secret("0");
  *agent.add_java_homes() = java;
  for (std::string& option : ClassDataDumpOptions(absl::StrCat("/local/", kClassArchive))) {
    agent.add_jvm_options(std::move(option));
  }
  if (jar.generation() == pb::LAUNCHER_JENKINS) agent.add_extra_args("-noReconnect");
  ASSIGN_OR_RETURN(AgentCommand command, BuildAgentCommand(agent, jar));
  pb::ProgramSpec& program = *spec.mutable_program();
  for (std::string& argument : command.argv) program.add_argv(std::move(argument));
  program.set_arguments_file(std::move(command.arguments_file));
  program.add_env("HOME=/local");
  program.set_work_dir("/local");
  return spec;
}

void ClassArchives::Finish() {
  if (making_.key.empty()) return;  // the other way of its end
  const std::string key = std::exchange(making_.key, "");
  making_.control.reset();
  options_.cleaner->Cancel(std::exchange(making_.deadline, 0));
  const absl::Status kept = Keep(key);
  if (kept.ok()) {
    Log(LogLevel::kInfo, "class-data archive made", {{"key", key}});
  } else {
    Log(LogLevel::kWarn, "class-data archive", {{"error", std::string(kept.message())}});
    if (failed_.size() == kMaxFailed) failed_.clear();
    failed_.insert(key);
  }
  const absl::Status removed =
      RemoveFromDisk(options_.paths.Task(kTaskId), options_.paths, options_.boot_id);
  if (!removed.ok()) {
    Log(LogLevel::kWarn, "class-data archive", {{"error", std::string(removed.message())}});
  }
  Prune();
}

// The file was nobody's until now, in a sandbox that has ended: what it is is looked at here.
absl::Status ClassArchives::Keep(const std::string& key) {
  const std::string made = absl::StrCat(options_.paths.Task(kTaskId), kOutDir, "/", kClassArchive);
  ASSIGN_OR_RETURN(const Fd file, OpenFile(made, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) return ErrnoStatus(made);
  if (!S_ISREG(status.st_mode)) return absl::InvalidArgumentError("is not a regular file");
  ASSIGN_OR_RETURN(const std::string content, ReadAll(file.get(), kMaxClassArchiveBytes));
  const std::string dir = options_.paths.ClassArchives(options_.boot_id);
  const std::string name = absl::StrCat(key, ".", Sha256Hex(content).substr(0, kNameBytes), ".jsa");
  RETURN_IF_ERROR(MakeDirs(dir, 0700));
  ASSIGN_OR_RETURN(const Fd directory, OpenFile(dir, O_RDONLY | O_DIRECTORY));
  RETURN_IF_ERROR(ReplaceFileAt(directory.get(), name, content, 0444));
  MutexLock lock(mutex_);
  kept_[key] = absl::StrCat(dir, "/", name);
  return absl::OkStatus();
}

void ClassArchives::Prune() {
  std::map<std::string, std::string> kept;
  {
    MutexLock lock(mutex_);
    kept = kept_;
  }
  std::vector<std::pair<fs::file_time_type, std::string>> by_use;
  std::error_code error;
  for (const auto& [key, path] : kept) by_use.emplace_back(fs::last_write_time(path, error), key);
  std::sort(by_use.begin(), by_use.end());
  for (size_t i = 0; i + kMaxClassArchives < by_use.size(); ++i) {
    const std::string& key = by_use[i].second;
    ::unlink(kept[key].c_str());  // tasks have links of their own
    MutexLock lock(mutex_);
    kept_.erase(key);
  }
}

}  // namespace jenkins_agent
