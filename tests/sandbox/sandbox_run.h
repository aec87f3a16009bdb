// Runs a program in a real sandbox, as the supervisor and its pid 1 would, and collects its output.
#pragma once

#include <string>
#include <vector>

#include "driver/sandbox/host_rootfs.h"
#include "driver/sandbox/root.h"
#include "proto/supervisor.pb.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {

struct SandboxResult {
  int exit_code = -1;  // 128 + signal when signalled; kSetupFailed: `output` is the error
  std::string output;  // stdout and stderr
};
inline constexpr int kSetupFailed = 125;

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
};

}  // namespace jenkins_agent
