// Runs a program in a real sandbox, as the supervisor and its pid 1 would, and collects its output.
#pragma once

#include <string>
#include <vector>

#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/root.h"
#include "driver/sandbox/root_template.h"
#include "proto/supervisor.pb.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {

struct SandboxResult {
  int exit_code = -1;  // 128 + signal when signalled; kSetupFailed: `output` is the error
  std::string output;  // stdout and stderr
};
inline constexpr int kSetupFailed = 125;

// This process's mount namespace becomes one that nobody else mounts in, all shared as systemd
// leaves them: the hardest host to hide from. False with errno when the kernel refuses.
bool BecomeSharedHost();

// A task on the host's root file system with its own directories below a temporary one.
class TestSandbox {
 public:
  TestSandbox();

  HostRootfs& rootfs() { return rootfs_; }
  pb::SandboxSpec& spec() { return spec_; }  // added to the plan: mounts, limits
  pb::UserSpec& user() { return user_; }
  std::vector<CgroupView>& cgroups() { return cgroups_; }
  // Of /dev, beside the usual ones.
  google::protobuf::RepeatedPtrField<pb::DeviceSpec>& devices() { return devices_; }
  const std::string& directory() const { return directory_.path(); }

  // Runs go on an image instead of the host's programs. `layers`: topmost first.
  void UseImage(std::vector<std::string> layers, bool read_only = false);

  // What a run hands to the spawner.
  pb::SandboxSpec Spec(pb::TemplateSpec* shared) const;
  std::string RootfsDir() const { return directory() + "/rootfs"; }
  // The template of the next runs, which otherwise have one each. Borrowed.
  void Share(const RootTemplate* root_template) { shared_ = root_template; }

  SandboxResult Run(const std::vector<std::string>& argv);
  SandboxResult Shell(const std::string& script) { return Run({"/bin/sh", "-c", script}); }
  // The static helper of tests/helpers, copied to /local.
  SandboxResult Probe(const std::vector<std::string>& arguments);

 private:
  TempDir directory_;
  HostRootfs rootfs_;
  pb::SandboxSpec spec_;
  pb::UserSpec user_;
  std::vector<CgroupView> cgroups_;
  google::protobuf::RepeatedPtrField<pb::DeviceSpec> devices_;
  const RootTemplate* shared_ = nullptr;
  std::vector<std::string> layers_;
  bool read_only_image_ = false;
};

}  // namespace jenkins_agent
