#include "driver/task/plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "cgroups/limits.h"
#include "driver/agent/command.h"
#include "driver/agent/environment.h"
#include "driver/base/paths.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/base/utf8.h"
#include "driver/config/agent_check.h"
#include "driver/jvm/class_data.h"
#include "driver/jvm/options.h"
#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/image_base.h"
#include "driver/sandbox/template_plan.h"
#include "driver/supervisor/protocol.h"
#include "driver/task/plan_mounts.h"
#include "driver/task/plan_network.h"
#include "driver/task/plan_privileges.h"
#include "driver/task/request_check.h"

namespace jenkins_agent {
namespace {

using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;
using NomadLinux = hashicorp::nomad::plugins::drivers::proto::LinuxResources;
using Environment = std::map<std::string, std::string>;

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr char kDefaultWorkDir[] = "/local";
constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kMinTmpBytes = 64 * kMiB;
constexpr int64_t kTmpWithoutMemoryLimit = 1024 * kMiB;
constexpr double kMaxCpuShares = 262144;  // the kernel's, and Nomad's (client/lib/cgroupslib)
constexpr int64_t kMinCpuQuotaUs = 1000;  // the kernel refuses less (sched/core.c)

enum class Program { kAgent, kJava, kCommand };

// An image's own program runs when nothing else is named.
Program ProgramOf(const PlanInput& input, const Environment& env) {
  const TaskConfig& options = input.options;
  if (!options.command.empty()) return Program::kCommand;
  if (!options.jar_path.empty() || !options.class_name.empty()) return Program::kJava;
  const bool agent = options.has_agent || (env.contains("JENKINS_URL") && options.args.empty());
  return input.image == nullptr || agent ? Program::kAgent : Program::kCommand;
}

absl::Status CheckAgentHasNetwork(const TaskConfig& options, Program kind) {
  if (kind != Program::kAgent || options.isolation.network_mode != kNetworkNone) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "network_mode: \"none\" keeps an agent from its controller; remove it, or name another "
      "program");
}

// Nomad's limits: memory_max (oversubscription) is the hard one when it is set, -1 means none.
void SetMemory(const NomadTask& task, pb::CgroupSpec& cgroup) {
  const auto& memory = task.resources().allocated_resources().memory();
  const int64_t reserved = memory.memory_mb() * kMiB;
  const int64_t maximum = memory.memory_max_mb() * kMiB;
  cgroup.set_memory_bytes(maximum > 0 ? maximum : maximum < 0 ? 0 : reserved);
  if (maximum != 0) cgroup.set_memory_soft_bytes(reserved);
}

// Nomad's shares are MHz. On a node that has more of them than the kernel has shares they are
// scaled down, as Nomad's own drivers do, so that the large tasks keep their proportions.
int64_t CpuShares(const NomadLinux& resources) {
  const double share = resources.percentticks();
  if (share <= 0 || static_cast<double>(resources.cpu_shares()) / share < kMaxCpuShares) {
    return resources.cpu_shares();
  }
  return static_cast<int64_t>(share * kMaxCpuShares);
}

// The task's part of the node, in time of all cores; the arithmetic of Nomad's docker driver
// (drivers/docker/driver.go, CPUHardLimit).
absl::StatusOr<int64_t> CpuQuotaUs(const NomadLinux& resources, int64_t host_cores) {
  if (resources.percentticks() <= 0) {
    return absl::FailedPreconditionError(
        "cpu_hard_limit: Nomad did not say which part of this node's CPU the task has");
  }
  const auto in_period = static_cast<int64_t>(resources.percentticks() * cgroups::kCpuPeriodUs);
  return std::max(in_period * host_cores, kMinCpuQuotaUs);
}

absl::StatusOr<pb::CgroupSpec> PlanCgroup(const PlanInput& input) {
  const auto& linux_resources = input.task.resources().linux_resources();
  pb::CgroupSpec cgroup;
  cgroup.set_name(absl::StrCat(input.task.alloc_id(), ".", input.task.name()));
  cgroup.set_cpuset_cgroup(linux_resources.cpuset_cgroup());
  cgroup.set_cpuset_cpus(linux_resources.cpuset_cpus());
  cgroup.set_cpu_shares(CpuShares(linux_resources));
  if (input.options.cpu_hard_limit) {
    ASSIGN_OR_RETURN(const int64_t quota, CpuQuotaUs(linux_resources, input.host_cores));
    cgroup.set_cpu_quota_us(quota);
  }
  cgroup.set_pids(input.options.pids_limit);
  cgroup.set_io_weight(static_cast<uint32_t>(input.options.io_weight));
  SetMemory(input.task, cgroup);
  return cgroup;
}

absl::StatusOr<uint64_t> TmpSize(const PlanInput& input, int64_t memory_bytes) {
  const std::optional<int64_t>& asked = input.options.isolation.tmp_size;
  if (!asked) {
    return memory_bytes == 0 ? kTmpWithoutMemoryLimit : std::max(memory_bytes / 10, kMinTmpBytes);
  }
  RETURN_IF_ERROR(CheckAgainstMemory(input.host, *asked), "tmp_size");
  return *asked;
}

absl::Status AddDevices(const PlanInput& input, pb::SandboxSpec& sandbox) {
  ASSIGN_OR_RETURN(const std::vector<pb::DeviceSpec> devices, PlanDevices(input));
  for (pb::MountSpec& mount : *sandbox.mutable_mounts()) {
    if (mount.kind() != pb::MountSpec::DEV) continue;
    for (const pb::DeviceSpec& device : devices) *mount.add_devices() = device;
  }
  return absl::OkStatus();
}

// The image's layers below a layer of the driver's own (sandbox/image_base.h) and, unless the job
// wants none, one for what the task writes.
absl::Status PlanImageRoot(const PlanInput& input, pb::SandboxSpec& sandbox) {
  const std::string dir = StatePaths::RootfsDir(input.task_dir);
  pb::ImageRoot& root = *sandbox.mutable_image();
  root.add_layers(absl::StrCat(dir, "/", kImageBaseDir));
  for (const std::string& layer : input.image->layers) root.add_layers(layer);
  const Isolation& isolation = input.options.isolation;
  if (!isolation.readonly_rootfs.value_or(false)) root.set_writable_dir(dir);
  root.set_writable_bytes(isolation.rootfs_size.value_or(0));
  return Annotate(CheckAgainstMemory(input.host, root.writable_bytes()), "rootfs_size");
}

bool IsInImage(const PlanInput& input, const std::string& java_home) {
  if (input.image == nullptr) return false;
  const std::vector<JavaInstall>& javas = input.image->javas;
  return std::any_of(javas.begin(), javas.end(),
                     [&java_home](const JavaInstall& java) { return java.path == java_home; });
}

absl::Status PlanSandbox(const PlanInput& input, Program kind,
                         const std::vector<std::string>& java_homes, int64_t memory_bytes,
                         pb::SandboxSpec& sandbox) {
  const NomadTask& task = input.task;
  const std::string task_dir = absl::StrCat(task.alloc_dir(), "/", task.name());
  HostRootfs rootfs;
  rootfs.alloc_dir = absl::StrCat(task.alloc_dir(), "/alloc");
  rootfs.logs_dir = absl::StrCat(rootfs.alloc_dir, "/logs");
  rootfs.local_dir = absl::StrCat(task_dir, "/local");
  rootfs.secrets_dir = absl::StrCat(task_dir, "/secrets");
  if (kind == Program::kAgent) {
    rootfs.jar_dir = StatePaths::JarDir(input.task_dir);
  }
  for (const std::string& home : java_homes) {
    const bool there =
        input.image == nullptr ? absl::StartsWith(home, "/usr/") : IsInImage(input, home);
    if (!there) rootfs.extra_read_only.push_back(home);
  }
  rootfs.uid = input.user.uid();
  rootfs.gid = input.user.gid();
  rootfs.user_name = input.user.name();
  rootfs.home = input.user.home();
  ASSIGN_OR_RETURN(rootfs.tmp_size_bytes, TmpSize(input, memory_bytes));
  rootfs.shm_size_bytes = input.options.isolation.shm_size;
  RETURN_IF_ERROR(CheckAgainstMemory(input.host, rootfs.shm_size_bytes), "shm_size");
  RETURN_IF_ERROR(PlanNames(input, rootfs));
  rootfs.host_root = input.host_root;
  rootfs.host_entries = input.host_entries;
  if (input.image != nullptr) {
    rootfs.passwd = input.image->passwd;
    rootfs.group = input.image->group;
    RETURN_IF_ERROR(PlanImageRoot(input, sandbox));
  }
  ASSIGN_OR_RETURN(const std::vector<pb::MountSpec> mounts,
                   input.image == nullptr ? PlanHostRootfs(rootfs) : PlanImageRootfs(rootfs),
                   "root file system");
  for (const pb::MountSpec& mount : mounts) *sandbox.add_mounts() = mount;
  ASSIGN_OR_RETURN(const std::vector<pb::MountSpec> added,
                   PlanMounts(input, rootfs.tmp_size_bytes));
  for (const pb::MountSpec& mount : added) *sandbox.add_mounts() = mount;
  RETURN_IF_ERROR(AddDevices(input, sandbox));
  sandbox.set_hostname(rootfs.hostname);
  RETURN_IF_ERROR(PlanNetwork(input, sandbox));
  return PlanPrivileges(input, sandbox);
}

// What Nomad gives, and what every program expects beside it. Nothing of the plugin's own.
Environment TaskEnvironment(const PlanInput& input) {
  Environment env(input.task.env().begin(), input.task.env().end());
  if (input.image != nullptr) {
    for (const std::string& variable : input.image->config.env) {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(variable, absl::MaxSplits('=', 1));
      env.insert(parts);  // the job's own wins
    }
  }
  env.emplace("PATH", kDefaultPath);
  env.emplace("HOME", input.user.home() == "/nonexistent" ? kDefaultWorkDir : input.user.home());
  env.emplace("USER", input.user.name());
  env.emplace("LOGNAME", input.user.name());
  return env;
}

pb::JavaHome HomeOf(const JavaInstall& java) {
  pb::JavaHome home;
  home.set_path(java.path);
  home.set_feature(java.feature);
  return home;
}

// Those of the version that the job asks for. `found`: the versions of all.
std::vector<pb::JavaHome> FittingJavas(const std::vector<JavaInstall>& javas,
                                       const std::string& version,
                                       std::vector<std::string>& found) {
  std::vector<pb::JavaHome> homes;
  for (const JavaInstall& java : javas) {
    found.push_back(absl::StrCat(java.feature));
    if (version.empty() || found.back() == version) homes.push_back(HomeOf(java));
  }
  return homes;
}

// The directory that the job names: the image's first, whose list begins with it.
absl::StatusOr<pb::JavaHome> NamedJava(const PlanInput& input) {
  const std::string& wanted = input.options.java_home;
  if (input.image != nullptr && !input.image->javas.empty() && input.image->has_java_home) {
    return HomeOf(input.image->javas.front());
  }
  ASSIGN_OR_RETURN(const JavaInstall java, ReadJavaHome(wanted), "java_home");
  return HomeOf(java);
}

// `found`: the versions that there are.
absl::Status NoFittingJava(const PlanInput& input, const std::vector<std::string>& found) {
  const std::string image =
      input.image == nullptr ? "" : absl::StrCat(" nor in image ", input.image->name);
  if (found.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no JDK found on this node", image,
                     "; install one, name its directory in the job's java_home or the plugin's "
                     "java_homes, or take an image that has Java"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("java_version: no Java ", input.options.java_version, " on this node", image,
                   "; there is ", absl::StrJoin(found, ", ")));
}

// An image's own Java, if it has a fitting one, else the node's.
absl::StatusOr<std::vector<pb::JavaHome>> CandidateJavas(const PlanInput& input) {
  if (!input.options.java_home.empty()) {
    ASSIGN_OR_RETURN(pb::JavaHome home, NamedJava(input));
    return std::vector<pb::JavaHome>{std::move(home)};
  }
  std::vector<std::string> found;
  if (input.image != nullptr) {
    std::vector<pb::JavaHome> homes =
        FittingJavas(input.image->javas, input.options.java_version, found);
    if (!homes.empty()) return homes;
  }
  std::vector<pb::JavaHome> homes = FittingJavas(input.javas, input.options.java_version, found);
  if (!homes.empty()) return homes;
  return NoFittingJava(input, found);
}

absl::Status ReadSecret(const PlanInput& input, pb::AgentSpec& agent) {
  std::string file = input.options.agent.secret_file;
  absl::string_view secret = agent.secret();
  if (file.empty() && absl::ConsumePrefix(&secret, "@")) file = std::string(secret);
  if (file.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string content, input.read_secret_file(file), "agent.secret_file");
  if (!IsUtf8(content)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "agent.secret_file: ", file, " holds no text; an agent's secret is a line of it"));
  }
  agent.set_secret(std::string(absl::StripAsciiWhitespace(content)));
  return absl::OkStatus();
}

pb::AgentSpec AgentFromOptions(const AgentBlock& block) {
  pb::AgentSpec agent;
  if (!block.url.empty()) agent.add_urls(block.url);
  agent.set_name(block.name);
  agent.set_tunnel(block.tunnel);
  agent.set_web_socket(block.web_socket.value_or(false));
  for (const auto& [name, value] : block.web_socket_headers) {
    agent.add_web_socket_headers(absl::StrCat(name, "=", value));
  }
  agent.set_direct(block.direct);
  agent.set_instance_identity(block.instance_identity);
  agent.set_ca_file(block.ca_file);
  for (const std::string& argument : block.extra_args) agent.add_extra_args(argument);
  // Nomad fills in the default, so it cannot be told from the user's own: the environment may win.
  if (block.root_dir != kDefaultAgentRootDir) agent.set_root_dir(block.root_dir);
  if (block.jar != kAutoJar) agent.set_jar(block.jar);
  agent.set_one_shot(block.mode == kModeOneShot);
  if (!block.max_age.empty()) agent.set_max_age_ms(HealthDuration(block.max_age).count());
  return agent;
}

pb::HealthSpec HealthFromOptions(const HealthBlock& block) {
  pb::HealthSpec health;
  health.set_disabled(!block.enabled);
  health.set_wedge_timeout_ms(HealthDuration(block.wedge_timeout).count());
  health.set_controller_grace_ms(HealthDuration(block.controller_grace).count());
  health.set_start_timeout_ms(HealthDuration(block.start_timeout).count());
  health.set_thread_limit(static_cast<uint64_t>(block.thread_limit));
  if (block.leftovers == kLeftoversKeep) health.set_leftovers(pb::HealthSpec::KEEP);
  if (block.leftovers == kLeftoversKill) health.set_leftovers(pb::HealthSpec::KILL);
  pb::HealthSpec::RestartBudget& restart = *health.mutable_restart();
  restart.set_attempts(static_cast<uint32_t>(block.restart.attempts));
  restart.set_interval_ms(HealthDuration(block.restart.interval).count());
  restart.set_delay_ms(HealthDuration(block.restart.delay).count());
  restart.set_max_delay_ms(HealthDuration(block.restart.max_delay).count());
  return health;
}

absl::Status PlanAgent(const PlanInput& input, const std::vector<pb::JavaHome>& javas,
                       Environment& env, pb::LaunchSpec& spec) {
  pb::AgentSpec& agent = *spec.mutable_agent();
  agent = AgentFromOptions(input.options.agent);
  *agent.mutable_health() = HealthFromOptions(input.options.health);
  std::vector<std::string> jvm_options = JvmOptionsFromEnvironment(env);
  jvm_options.insert(jvm_options.end(), input.options.jvm_options.begin(),
                     input.options.jvm_options.end());
  RETURN_IF_ERROR(MergeEnvironment(env, agent));
  if (agent.root_dir().empty()) agent.set_root_dir(kDefaultAgentRootDir);
  if (input.options.agent.web_socket == false) agent.set_web_socket(false);  // the job's word wins
  RETURN_IF_ERROR(ReadSecret(input, agent));
  RETURN_IF_ERROR(CheckAgent(agent));
  for (const pb::JavaHome& home : javas) *agent.add_java_homes() = home;
  for (std::string& option : DefaultJvmOptions(spec.cgroup().memory_bytes(), jvm_options)) {
    agent.add_jvm_options(std::move(option));
  }
  // An image has its own Java, or other libraries than the archives were made with.
  if (input.options.class_data_sharing && input.image == nullptr && CanShareClassData(agent)) {
    agent.add_jvm_options(ClassDataOption());
  }
  spec.mutable_program()->set_work_dir(agent.root_dir());
  spec.mutable_program()->add_make_dirs(agent.root_dir());
  return absl::OkStatus();
}

std::string JarPathInSandbox(const TaskConfig& options) {
  if (options.jar_path.empty() || absl::StartsWith(options.jar_path, "/")) return options.jar_path;
  return absl::StrCat("/", options.jar_path);
}

// The java driver's names: java [jvm_options] [-cp class_path] (-jar jar_path | class) [args].
void PlanJava(const PlanInput& input, const pb::JavaHome& java, pb::ProgramSpec& program) {
  const TaskConfig& options = input.options;
  std::vector<std::string> arguments = options.jvm_options;
  if (!options.class_path.empty()) {
    arguments.push_back("-cp");
    arguments.push_back(options.class_path);
  }
  if (!options.jar_path.empty()) {
    arguments.push_back("-jar");
    arguments.push_back(JarPathInSandbox(options));
  } else {
    arguments.push_back(options.class_name);
  }
  arguments.insert(arguments.end(), options.args.begin(), options.args.end());
  std::string& file = *program.mutable_arguments_file();
  for (const std::string& argument : arguments)
    absl::StrAppend(&file, QuoteArgument(argument), "\n");
  program.add_argv(absl::StrCat(java.path(), "/bin/java"));
  program.add_argv(absl::StrCat("@", kArgumentsFile));
}

// A launcher that the job starts itself is looked after as any other agent. Of a jar the plugin
// finds out whether it is one.
void PlanOwnAgent(const PlanInput& input, pb::LaunchSpec& spec) {
  const TaskConfig& options = input.options;
  const bool may_be_one = !options.jar_path.empty() || IsAgentMainClass(options.class_name);
  if (!may_be_one || !options.health.enabled) return;
  pb::AgentSpec& agent = *spec.mutable_agent();
  agent = AgentOfArguments(options.args);
  agent.set_own_command(true);
  agent.set_jar(JarPathInSandbox(options));
  if (agent.name().empty()) agent.set_name(input.task.name());
  *agent.mutable_health() = HealthFromOptions(options.health);
}

// The job's `logs { disabled = true }` shows as /dev/null in both modes (logmon_hook.go).
pb::OutputSpec PlanOutput(const PlanInput& input) {
  const NomadTask& task = input.task;
  pb::OutputSpec output;
  output.set_stdout_path(task.stdout_path());
  output.set_stderr_path(task.stderr_path());
  if (!input.own_log_files || task.stdout_path() == "/dev/null") return output;
  pb::LogFiles& files = *output.mutable_files();
  files.set_root(task.alloc_dir());
  files.set_directory("alloc/logs");
  files.set_stdout_name(absl::StrCat(task.name(), ".stdout"));
  files.set_stderr_name(absl::StrCat(task.name(), ".stderr"));
  files.set_max_files(input.logs.max_files);
  files.set_max_file_bytes(input.logs.max_file_size * kMiB);
  return output;
}

// With docker's rule for an image's own program: the job's arguments take the place of its CMD.
absl::Status PlanCommand(const PlanInput& input, pb::ProgramSpec& program) {
  const TaskConfig& options = input.options;
  std::vector<std::string> argv;
  if (!options.command.empty()) {
    argv.push_back(options.command);
  } else {
    argv = input.image->config.entrypoint;
  }
  const bool cmd = options.command.empty() && options.args.empty();
  for (const std::string& argument : cmd ? input.image->config.command : options.args) {
    argv.push_back(argument);
  }
  if (argv.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config: no program: image ", input.image->name,
                     " names none; set agent { url = ... }, jar_path, class, or command"));
  }
  for (std::string& argument : argv) program.add_argv(std::move(argument));
  return absl::OkStatus();
}

// Of a program that is no agent.
std::string WorkDir(const PlanInput& input) {
  if (!input.options.work_dir.empty()) return input.options.work_dir;
  const bool of_image = input.image != nullptr && !input.image->config.work_dir.empty();
  return of_image ? input.image->config.work_dir : kDefaultWorkDir;
}

}  // namespace

absl::Status CheckAgainstMemory(const HostLimits& host, uint64_t bytes) {
  if (host.memory_bytes == 0 || bytes <= host.memory_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes are more than this host's memory, ",
                                                 host.memory_bytes, " bytes"));
}

absl::StatusOr<pb::LaunchSpec> PlanTask(const PlanInput& input) {
  Environment env = TaskEnvironment(input);
  RETURN_IF_ERROR(ValidateProgramChoice(input.options, env.contains("JENKINS_URL")));
  const Program kind = ProgramOf(input, env);
  RETURN_IF_ERROR(CheckAgentHasNetwork(input.options, kind));

  pb::LaunchSpec spec;
  spec.set_version(kSpecVersion);
  spec.set_task_id(input.task.id());
  spec.set_task_dir(input.task_dir);
  *spec.mutable_user() = input.user;
  RETURN_IF_ERROR(PlanUserNamespace(input, *spec.mutable_user()));
  ASSIGN_OR_RETURN(*spec.mutable_cgroup(), PlanCgroup(input));
  *spec.mutable_output() = PlanOutput(input);
  spec.mutable_program()->set_work_dir(WorkDir(input));

  std::vector<pb::JavaHome> javas;
  if (kind != Program::kCommand) {
    ASSIGN_OR_RETURN(javas, CandidateJavas(input));
  }
  switch (kind) {
    case Program::kAgent:
      RETURN_IF_ERROR(PlanAgent(input, javas, env, spec));
      break;
    case Program::kJava:
      PlanJava(input, javas.front(), *spec.mutable_program());
      PlanOwnAgent(input, spec);
      break;
    case Program::kCommand:
      RETURN_IF_ERROR(PlanCommand(input, *spec.mutable_program()));
      break;
  }
  if (!input.options.work_dir.empty()) spec.mutable_program()->set_work_dir(input.options.work_dir);
  for (const auto& [key, value] : env) {
    spec.mutable_program()->add_env(absl::StrCat(key, "=", value));
  }
  RETURN_IF_ERROR(PlanLimits(input, *spec.mutable_sandbox()));
  RETURN_IF_ERROR(CheckExecSize(spec.program(), StackLimit(input, spec.sandbox())));
  std::vector<std::string> java_paths;
  for (const pb::JavaHome& java : javas) java_paths.push_back(java.path());
  RETURN_IF_ERROR(
      PlanSandbox(input, kind, java_paths, spec.cgroup().memory_bytes(), *spec.mutable_sandbox()));
  PlanDeviceControl(input, spec.sandbox(), *spec.mutable_cgroup());
  *spec.mutable_root_template() = input.image == nullptr
                                      ? TakeTemplate(*spec.mutable_sandbox(), spec.user())
                                      : TemplateForImages();
  return spec;
}

}  // namespace jenkins_agent
