// A plugin over its real socket with an allocation directory: what tests of single RPCs share.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/contract/plugin_host.h"
#include "tests/support/command_config.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {

MATCHER(Succeeded, "succeeded") {
  *result_listener << arg.error_code() << " " << arg.error_message();
  return arg.ok();
}

class TaskFixture : public ::testing::Test {
 protected:
  using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0711), 0);
    MakeTaskDirs("agent");
    Launch(dir_.path() + "/state");
  }
  // Nothing may be left by whatever the test did.
  void TearDown() override {
    if (host_ == nullptr) return;
    EXPECT_THAT(Destroy(kId), Succeeded());
    EXPECT_EQ(TasksOnDisk(), 0);
    EXPECT_EQ(CgroupsLeft(), std::vector<std::string>());
    EXPECT_OK(host_->Kill());
  }

  void MakeTaskDirs(const std::string& name) {
    for (const std::string& part :
         {std::string("alloc/logs"), name + "/local", name + "/secrets"}) {
      const std::string path = absl::StrCat(dir_.path(), "/allocs/", part);
      ASSERT_OK(MakeDirs(path));
      ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
    }
  }

  void Launch(const std::string& state_dir) {
    state_dir_ = state_dir;
    ASSERT_OK_AND_ASSIGN(host_, PluginHost::Launch(DRIVER_FILE, {}));
    hashicorp::nomad::plugins::base::proto::SetConfigRequest request;
    // fixmap { "state_dir": path }
    request.set_msgpack_config(absl::StrCat("\x81\xa9state_dir", std::string(1, '\xd9'),
                                            std::string(1, static_cast<char>(state_dir.size())),
                                            state_dir));
    request.mutable_nomad_config()->mutable_driver()->set_clientminport(14000);
    hashicorp::nomad::plugins::base::proto::SetConfigResponse response;
    grpc::ClientContext context;
    ASSERT_THAT(host_->base().SetConfig(&context, request, &response), Succeeded());
  }

  NomadTask Config(const std::string& command, const std::vector<std::string>& args) const {
    NomadTask config;
    config.set_id(kId);
    config.set_alloc_id(AllocId());
    config.set_name("agent");
    config.set_alloc_dir(dir_.path() + "/allocs");
    config.set_stdout_path("/dev/null");
    config.set_stderr_path("/dev/null");
    config.set_msgpack_driver_config(CommandConfig(command, args));
    return config;
  }
  static std::string AllocId() { return absl::StrCat("contract-task-", ::getpid()); }

  grpc::Status Start(const NomadTask& config) {
    hashicorp::nomad::plugins::drivers::proto::StartTaskRequest request;
    *request.mutable_task() = config;
    hashicorp::nomad::plugins::drivers::proto::StartTaskResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(90));
    const grpc::Status status = host_->driver().StartTask(&context, request, &response);
    handle_ = response.handle();
    return status;
  }
  grpc::Status Destroy(const std::string& id) {
    hashicorp::nomad::plugins::drivers::proto::DestroyTaskRequest request;
    request.set_task_id(id);
    request.set_force(true);
    hashicorp::nomad::plugins::drivers::proto::DestroyTaskResponse response;
    grpc::ClientContext context;
    return host_->driver().DestroyTask(&context, request, &response);
  }
  grpc::Status Recover() {
    hashicorp::nomad::plugins::drivers::proto::RecoverTaskRequest request;
    *request.mutable_handle() = handle_;
    hashicorp::nomad::plugins::drivers::proto::RecoverTaskResponse response;
    grpc::ClientContext context;
    return host_->driver().RecoverTask(&context, request, &response);
  }
  int ExitCodeOf(const std::string& id) {
    hashicorp::nomad::plugins::drivers::proto::WaitTaskRequest request;
    request.set_task_id(id);
    hashicorp::nomad::plugins::drivers::proto::WaitTaskResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    EXPECT_THAT(host_->driver().WaitTask(&context, request, &response), Succeeded());
    return response.result().exit_code();
  }
  // Starts it, waits for its end and forgets it.
  int RunToEnd(const NomadTask& config) {
    EXPECT_THAT(Start(config), Succeeded());
    const int exit_code = ExitCodeOf(config.id());
    EXPECT_THAT(Destroy(config.id()), Succeeded());
    return exit_code;
  }

  int TasksOnDisk() const {
    const std::filesystem::directory_iterator tasks(state_dir_ + "/tasks");
    return static_cast<int>(std::distance(begin(tasks), end(tasks)));
  }
  // No Nomad makes cgroups for these tasks, so each directory with our name is ours.
  static std::vector<std::string> CgroupsLeft() {
    std::vector<std::string> found;
    constexpr auto kOptions = std::filesystem::directory_options::skip_permission_denied;
    std::error_code error;
    for (std::filesystem::recursive_directory_iterator it("/sys/fs/cgroup", kOptions, error), end;
         !error && it != end; it.increment(error)) {
      if (it.depth() > 3) it.disable_recursion_pending();
      if (it->path().filename().string().rfind(AllocId(), 0) == 0) found.push_back(it->path());
    }
    return found;
  }

  static constexpr char kId[] = "alloc/agent/1";
  const TempDir dir_;
  std::string state_dir_;
  std::unique_ptr<PluginHost> host_;
  hashicorp::nomad::plugins::drivers::proto::TaskHandle handle_;
};

}  // namespace jenkins_agent
