#include "tests/bench/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/seccomp.h"
#include "tests/bench/fleet.h"
#include "tests/bench/process.h"

namespace jenkins_agent::bench {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kNobody = 65534;
constexpr char kLocal[] = "/local";
constexpr size_t kMaxOutput = 1 << 20;
constexpr char kCgroupRoot[] = "/sys/fs/cgroup";
constexpr char kUnifiedTree[] = "/sys/fs/cgroup/unified";

std::string PathOf(const std::string& program) {
  for (const char* dir : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"}) {
    if (::access((dir + program).c_str(), X_OK) == 0) return dir + program;
  }
  return "";
}

Json Mount(const char* type, const char* source, const char* target, const Json& options) {
  return {{"destination", target}, {"type", type}, {"source", source}, {"options", options}};
}

Json Bind(const std::string& source, const std::string& target, bool read_only) {
  return Mount("bind", source.c_str(), target.c_str(),
               {"rbind", "nosuid", "nodev", read_only ? "ro" : "rw"});
}

// `runc spec` of 1.1, with the driver's /tmp and its binds of the host's programs.
Json Mounts(const std::string& local_dir) {
  Json mounts = {
      Mount("proc", "proc", "/proc", Json::array()),
      Mount("tmpfs", "tmpfs", "/dev", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
      Mount("devpts", "devpts", "/dev/pts",
            {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}),
      Mount("tmpfs", "shm", "/dev/shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
      Mount("mqueue", "mqueue", "/dev/mqueue", {"nosuid", "noexec", "nodev"}),
      Mount("sysfs", "sysfs", "/sys", {"nosuid", "noexec", "nodev", "ro"}),
      Mount("cgroup", "cgroup", "/sys/fs/cgroup", {"nosuid", "noexec", "nodev", "relatime", "ro"}),
      Mount("tmpfs", "tmpfs", "/tmp", {"nosuid", "nodev", "mode=1777", "size=65536k"}),
      Bind("/usr", "/usr", true),
      Bind("/etc", "/etc", true),
      Bind(local_dir, "/local", false)};
  return mounts;
}

// The driver's own allow-list, by name. Rules on arguments become plain permissions.
Json Seccomp() {
  Json names = Json::array();
  for (const auto& [number, rule] : PayloadCallRules()) {
    if (rule.kind == CallRule::Kind::kDeny || rule.kind == CallRule::Kind::kMissing) continue;
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, static_cast<int>(number));
    if (name != nullptr) names.push_back(name);
    ::free(name);
  }
  // What the runtimes themselves still do after the filter is loaded.
  for (const char* name : {"capset", "prctl", "setgroups"}) names.push_back(name);
  return {{"defaultAction", "SCMP_ACT_ERRNO"},
          {"architectures", {"SCMP_ARCH_X86_64"}},
          {"syscalls", {{{"names", names}, {"action", "SCMP_ACT_ALLOW"}}}}};
}

Json Namespaces(bool own_network) {
  Json namespaces = Json::array();
  for (const char* type : {"pid", "ipc", "uts", "mount", "cgroup"}) {
    namespaces.push_back({{"type", type}});
  }
  if (own_network) namespaces.push_back({{"type", "network"}});
  return namespaces;
}

constexpr int64_t kMiB = 1 << 20;

Json Config(const std::string& local_dir, const Program& program, bool own_network) {
  Json args = {"/local/" + BaseNameOf(program)};
  for (const std::string& argument : program.args) args.push_back(argument);
  Json spec;
  spec["ociVersion"] = "1.0.2";
  spec["process"] = {{"terminal", false},
                     {"user", {{"uid", kNobody}, {"gid", kNobody}}},
                     {"args", args},
                     {"env", {"PATH=/usr/bin:/bin"}},
                     {"cwd", "/local"},
                     {"rlimits", {{{"type", "RLIMIT_NOFILE"}, {"hard", 1024}, {"soft", 1024}}}},
                     {"noNewPrivileges", true}};
  spec["root"] = {{"path", "rootfs"}, {"readonly", true}};
  spec["hostname"] = "bench";
  spec["mounts"] = Mounts(local_dir);
  spec["linux"] = {
      {"resources",
       {{"memory", {{"limit", program.memory_mb * kMiB}}},
        {"cpu", {{"shares", 200}}},
        {"pids", {{"limit", program.pids}}}}},
      {"namespaces", Namespaces(own_network)},
      {"maskedPaths",
       {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
        "/proc/scsi"}},
      {"readonlyPaths", {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}},
      {"seccomp", Seccomp()}};
  return spec;
}

// posix_spawn: no copy of this process is in a figure.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& argv, int stdout_fd) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  std::string path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  std::vector<char*> env = {path.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, stdout_fd, STDOUT_FILENO);
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, argv[0].c_str(), &actions, nullptr, pointers.data(), env.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(argv[0], error);
  return pid;
}

absl::Status AwaitEnd(pid_t pid, const std::string& name) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(name, ": wait status ", status));
}

absl::Status RunToEnd(const std::vector<std::string>& argv) {
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_WRONLY));
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(argv, null.get()));
  return AwaitEnd(pid, argv[0]);
}

std::string CgroupParent() { return absl::StrCat("/bench-peers-", ::getpid()); }

std::string CgroupPath(const std::string& dir) {
  return absl::StrCat(CgroupParent(), "/", fs::path(dir).filename().string());
}

// The runtimes remove their own directory only. One that is in use stays.
void RemoveCgroupParents() {
  ::rmdir(absl::StrCat(kCgroupRoot, CgroupParent()).c_str());
  std::error_code error;
  for (const fs::directory_entry& hierarchy : fs::directory_iterator(kCgroupRoot, error)) {
    ::rmdir((hierarchy.path().string() + CgroupParent()).c_str());
  }
}

}  // namespace

absl::Status HideUnifiedTree() {
  if (::access(kUnifiedTree, F_OK) != 0) return absl::OkStatus();
  if (::unshare(CLONE_NEWNS) != 0) return ErrnoStatus("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus("make mounts private");
  }
  // EINVAL: nothing is mounted there, as after an earlier call.
  if (::umount2(kUnifiedTree, MNT_DETACH) != 0 && errno != EINVAL) return ErrnoStatus(kUnifiedTree);
  return absl::OkStatus();
}

bool OciBundle::Installed(const std::string& runtime) { return !PathOf(runtime).empty(); }

absl::StatusOr<OciBundle> OciBundle::Make(const std::string& dir, const std::string& probe,
                                          bool own_network) {
  RETURN_IF_ERROR(
      Write(dir, Config(fs::path(probe).parent_path().string(), {.file = probe}, own_network)));
  return OciBundle(dir);
}

absl::StatusOr<OciBundle> OciBundle::MakeProgram(const std::string& dir, const Program& program) {
  OciBundle bundle(dir);
  const std::string local_dir = dir + kLocal;
  RETURN_IF_ERROR(MakeDirs(local_dir));
  if (::chmod(dir.c_str(), 0711) != 0 || ::chmod(local_dir.c_str(), 0777) != 0) {
    return ErrnoStatus(local_dir);
  }
  std::error_code error;
  fs::copy_file(program.file, absl::StrCat(local_dir, "/", BaseNameOf(program)), error);
  if (error) return absl::InternalError(absl::StrCat(program.file, ": ", error.message()));
  Json config = Config(local_dir, program, /*own_network=*/false);
  config["linux"]["cgroupsPath"] = CgroupPath(dir);
  RETURN_IF_ERROR(Write(dir, config));
  return bundle;
}

absl::Status OciBundle::Write(const std::string& dir, const Json& config) {
  for (const char* target : {"proc", "dev", "sys", "tmp", "usr", "etc", "local"}) {
    RETURN_IF_ERROR(MakeDirs(absl::StrCat(dir, "/rootfs/", target)));
  }
  std::error_code error;  // a second bundle in the same directory finds them
  for (const char* link : {"bin", "lib", "lib64", "sbin"}) {
    fs::create_directory_symlink(absl::StrCat("usr/", link), absl::StrCat(dir, "/rootfs/", link),
                                 error);
  }
  return WriteFileAtomic(dir + "/config.json", config.dump());
}

Running OciBundle::running(const cgroups::Hierarchy& hierarchy) const {
  Running running{dir_ + kLocal, {}};
  if (hierarchy.version() == cgroups::Version::kV2) {
    running.cgroup_dirs.push_back(hierarchy.root() + CgroupPath(dir_));
    return running;
  }
  for (const char* controller : {"freezer", "memory", "cpu", "cpuacct", "pids"}) {
    if (!hierarchy.Has(controller)) continue;
    running.cgroup_dirs.push_back(hierarchy.ControllerPath(controller) + CgroupPath(dir_));
  }
  return running;
}

std::string OciBundle::IdOf(const std::string& runtime) const {
  return absl::StrCat("bench-", runtime, "-", ::getpid(), "-", fs::path(dir_).filename().string());
}

std::vector<std::string> OciBundle::Command(const std::string& runtime,
                                            const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {PathOf(runtime), "--root", absl::StrCat(dir_, "/", runtime),
                                   "--log", absl::StrCat(dir_, "/", runtime, ".log")};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

absl::StatusOr<Sample> OciBundle::MeasureRun(const std::string& runtime) const {
  return MeasureSpawn(Command(runtime, {"run", "--bundle", dir_, IdOf(runtime)}),
                      absl::StrCat(dir_, "/", runtime, ".log"));
}

absl::StatusOr<Sample> MeasureSpawn(const std::vector<std::string>& argv, const std::string& log) {
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  const double begin = NowMs();
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(argv, out.write.get()));
  out.write.Reset();
  const absl::StatusOr<double> stamp = ReadStamp(out.read.get());
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (!stamp.ok()) return Annotate(stamp.status(), ReadFile(log).value_or(""));
  Sample sample;
  sample.first_instruction_ms = *stamp - begin;
  sample.reaped_ms = NowMs() - begin;
  return sample;
}

absl::Status OciBundle::StartDetached(const std::string& runtime) const {
  return RunToEnd(Command(runtime, {"run", "--detach", "--bundle", dir_, IdOf(runtime)}));
}

absl::StatusOr<pid_t> OciBundle::StartAttached(const std::string& runtime) const {
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_WRONLY));
  return Spawn(Command(runtime, {"run", "--bundle", dir_, IdOf(runtime)}), null.get());
}

// The runtime deletes what its container leaves.
absl::Status OciBundle::EndAttached(const std::string& runtime, pid_t pid) const {
  const absl::Status killed = RunToEnd(Command(runtime, {"kill", IdOf(runtime), "KILL"}));
  if (!killed.ok()) ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  RemoveCgroupParents();
  return killed;
}

absl::StatusOr<std::string> OciBundle::Run(const std::string& runtime) const {
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  ASSIGN_OR_RETURN(
      const pid_t pid,
      Spawn(Command(runtime, {"run", "--bundle", dir_, IdOf(runtime)}), out.write.get()));
  out.write.Reset();
  absl::StatusOr<std::string> output = ReadAll(out.read.get(), kMaxOutput);
  const absl::Status ended = AwaitEnd(pid, runtime);
  RemoveCgroupParents();
  RETURN_IF_ERROR(ended);
  return output;
}

absl::Status OciBundle::Kill(const std::string& runtime) const {
  const absl::Status killed = RunToEnd(Command(runtime, {"delete", "--force", IdOf(runtime)}));
  RemoveCgroupParents();
  return killed;
}

}  // namespace jenkins_agent::bench
