#include "tests/sandbox/sandbox_run.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/image_base.h"
#include "driver/sandbox/network.h"
#include "driver/sandbox/privileges.h"
#include "driver/sandbox/seccomp.h"
#include "driver/sandbox/template_plan.h"
#include "driver/sandbox/user_namespace.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kUid = 64321;
constexpr uint32_t kGid = 64322;
constexpr int kNotExecuted = 124;

int ExitCodeOf(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

[[noreturn]] void Fail(const absl::Status& status) {
  const std::string message = absl::StrCat("sandbox: ", status.message(), "\n");
  (void)!::write(STDERR_FILENO, message.data(), message.size());
  ::_exit(kSetupFailed);
}

[[noreturn]] void BePayload(const pb::SandboxSpec& spec, const pb::UserSpec& user,
                            int user_namespace, const std::vector<std::string>& argv) {
  if (absl::Status status = BecomePayload(user, spec, user_namespace); !status.ok()) Fail(status);
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  char path[] = "PATH=/usr/bin:/bin";
  char* environment[] = {path, nullptr};
  ::execve(arguments[0], arguments.data(), environment);
  ::_exit(kNotExecuted);
}

[[noreturn]] void BeInit(const pb::SandboxSpec& spec, int template_namespace,
                         const pb::UserSpec& user, const std::vector<CgroupView>& cgroups,
                         const std::vector<std::string>& argv) {
  if (absl::Status status = EnterNetwork(spec); !status.ok()) Fail(status);
  const absl::StatusOr<Fd> user_namespace = MakeUserNamespace(user);
  if (!user_namespace.ok()) Fail(user_namespace.status());
  const RootOwner owner = {user, user_namespace->get()};
  absl::StatusOr<std::vector<CgroupTree>> trees = CloneCgroups(cgroups);
  const auto await = [&trees] { return std::move(trees); };
  if (absl::Status status = BuildRoot(spec, template_namespace, await, owner); !status.ok()) {
    Fail(status);
  }
  if (absl::Status status = BecomeInit(spec); !status.ok()) Fail(status);
  const pid_t payload = ::fork();
  if (payload == 0) BePayload(spec, user, user_namespace->get(), argv);
  ::_exit(ExitCodeOf(payload));
}

// In a process of its own: the namespaces of the test program stay as they are.
[[noreturn]] void BeSupervisor(int output, const pb::SandboxSpec& spec, const pb::TemplateSpec& own,
                               const RootTemplate* shared, const pb::UserSpec& user,
                               const std::vector<CgroupView>& cgroups,
                               const std::vector<std::string>& argv) {
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  RootTemplates made({"memory", "cpu", "cpuacct", "cpuset"});
  const absl::StatusOr<Fd> root_template =
      shared != nullptr ? Duplicate(shared->mount_namespace()) : made.Get(own.SerializeAsString());
  if (!root_template.ok()) Fail(root_template.status());
  if (::unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) != 0) Fail(ErrnoStatus("unshare"));
  const pid_t init = ::fork();
  if (init == 0) BeInit(spec, root_template->get(), user, cgroups, argv);
  ::_exit(ExitCodeOf(init));
}

}  // namespace

bool BecomeSharedHost() {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_SHARED, nullptr) == 0;
}

TestSandbox::TestSandbox() {
  for (const char* name : {"alloc/logs", "local", "secrets"}) {
    fs::create_directories(directory() + "/" + name);
  }
  for (const char* name : {"alloc", "local", "secrets"}) {
    if (::chown((directory() + "/" + name).c_str(), kUid, kGid) != 0) ::abort();
  }
  rootfs_.alloc_dir = directory() + "/alloc";
  rootfs_.logs_dir = directory() + "/alloc/logs";
  rootfs_.local_dir = directory() + "/local";
  rootfs_.secrets_dir = directory() + "/secrets";
  rootfs_.uid = kUid;
  rootfs_.gid = kGid;
  rootfs_.user_name = "ci";
  rootfs_.home = "/local";
  rootfs_.hostname = "agent-1";
  rootfs_.tmp_size_bytes = 16 << 20;
  user_.set_uid(kUid);
  user_.set_gid(kGid);
  user_.add_groups(kGid);
}

pb::SandboxSpec TestSandbox::Spec(pb::TemplateSpec* shared) const {
  const absl::StatusOr<std::vector<pb::MountSpec>> plan =
      layers_.empty() ? PlanHostRootfs(rootfs_) : PlanImageRootfs(rootfs_);
  EXPECT_OK(plan);
  pb::SandboxSpec spec;
  if (!plan.ok()) return spec;
  for (pb::MountSpec mount : *plan) {
    if (mount.kind() == pb::MountSpec::DEV) *mount.mutable_devices() = devices_;
    *spec.add_mounts() = std::move(mount);
  }
  for (const std::string& path : DefaultMaskedPaths()) spec.add_masked_paths(path);
  for (const std::string& path : DefaultReadOnlyPaths()) spec.add_read_only_paths(path);
  spec.set_hostname(rootfs_.hostname);
  spec.set_payload_filter(PayloadFilter());
  spec.set_init_filter(InitFilter());
  spec.MergeFrom(spec_);
  if (layers_.empty()) {
    *shared = TakeTemplate(spec, user_);
    return spec;
  }
  EXPECT_OK(RemoveTree(RootfsDir()));
  EXPECT_OK(MakeDirs(RootfsDir(), 0700));
  spec.mutable_image()->add_layers(RootfsDir() + "/base");
  for (const std::string& layer : layers_) spec.mutable_image()->add_layers(layer);
  if (!read_only_image_) spec.mutable_image()->set_writable_dir(RootfsDir());
  EXPECT_OK(MakeImageBase(spec));
  *shared = TemplateForImages();
  return spec;
}

void TestSandbox::UseImage(std::vector<std::string> layers, bool read_only) {
  layers_ = std::move(layers);
  read_only_image_ = read_only;
}

SandboxResult TestSandbox::Run(const std::vector<std::string>& argv) {
  pb::TemplateSpec own;
  const pb::SandboxSpec spec = Spec(&own);
  absl::StatusOr<Pipe> output = MakePipe();
  if (!output.ok()) return {kSetupFailed, output.status().ToString()};
  const pid_t supervisor = ::fork();
  if (supervisor == 0) {
    BeSupervisor(output->write.get(), spec, own, shared_, user_, cgroups_, argv);
  }
  output->write.Reset();
  absl::StatusOr<std::string> text = ReadAll(output->read.get(), 1 << 20);
  return {ExitCodeOf(supervisor), text.ok() ? *text : text.status().ToString()};
}

SandboxResult TestSandbox::Probe(const std::vector<std::string>& arguments) {
  fs::copy_file(SANDBOX_PROBE, directory() + "/local/probe", fs::copy_options::overwrite_existing);
  std::vector<std::string> argv = {"/local/probe"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return Run(argv);
}

}  // namespace jenkins_agent
