// The contract with Nomad's client, call by call (nomad-driver-protocol.md 5 and 9), against the
// plugin's own file.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "tests/contract/plugin_host.h"
#include "tests/support/command_config.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
namespace base_proto = hashicorp::nomad::plugins::base::proto;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

MATCHER(Succeeded, "succeeded") {
  *result_listener << arg.error_code() << " " << arg.error_message();
  return arg.ok();
}

// fixmap { "log_collection": word, "state_dir": path }
std::string PluginConfigBytes(const std::string& state_dir, const std::string& log_collection) {
  return absl::StrCat("\x82\xaelog_collection", std::string(1, '\xd9'),
                      std::string(1, static_cast<char>(log_collection.size())), log_collection,
                      "\xa9state_dir", std::string(1, '\xd9'),
                      std::string(1, static_cast<char>(state_dir.size())), state_dir);
}

class Driver : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0711), 0);
    for (const char* part : {"alloc/logs", "agent/local", "agent/secrets"}) {
      const std::string path = absl::StrCat(dir_.path(), "/allocs/", part);
      ASSERT_OK(MakeDirs(path));
      ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
    }
    Launch();
  }
  void TearDown() override {
    if (host_ == nullptr) return;
    EXPECT_THAT(Destroy(), Succeeded());
    EXPECT_OK(host_->Kill());
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));
  }

  void Launch(const std::string& log_collection = "nomad") {
    ASSERT_OK_AND_ASSIGN(host_, PluginHost::Launch(DRIVER_FILE, {}));
    base_proto::SetConfigRequest request;
    request.set_msgpack_config(PluginConfigBytes(dir_.path() + "/state", log_collection));
    request.mutable_nomad_config()->mutable_driver()->set_clientminport(14000);
    base_proto::SetConfigResponse response;
    grpc::ClientContext context;
    ASSERT_THAT(host_->base().SetConfig(&context, request, &response), Succeeded());
  }

  nomad::TaskConfig Config(const std::string& command, const std::vector<std::string>& args) {
    nomad::TaskConfig config;
    config.set_id(kId);
    config.set_alloc_id(absl::StrCat("contract-test-", ::getpid()));
    config.set_name("agent");
    config.set_alloc_dir(dir_.path() + "/allocs");
    config.set_stdout_path("/dev/null");
    config.set_stderr_path("/dev/null");
    config.set_msgpack_driver_config(CommandConfig(command, args));
    (*config.mutable_env())["TOKEN"] = "s3cret";
    return config;
  }
  grpc::Status Start(const nomad::TaskConfig& config, nomad::StartTaskResponse* response) {
    nomad::StartTaskRequest request;
    *request.mutable_task() = config;
    grpc::ClientContext context;
    return host_->driver().StartTask(&context, request, response);
  }
  void StartOk(const std::string& command, const std::vector<std::string>& args) {
    nomad::StartTaskResponse response;
    ASSERT_THAT(Start(Config(command, args), &response), Succeeded());
    handle_ = response.handle();
  }
  grpc::Status Stop(const std::string& signal, int seconds) {
    nomad::StopTaskRequest request;
    request.set_task_id(kId);
    request.set_signal(signal);
    request.mutable_timeout()->set_seconds(seconds);
    nomad::StopTaskResponse response;
    grpc::ClientContext context;
    return host_->driver().StopTask(&context, request, &response);
  }
  grpc::Status Destroy(bool force = true) {
    nomad::DestroyTaskRequest request;
    request.set_task_id(kId);
    request.set_force(force);
    nomad::DestroyTaskResponse response;
    grpc::ClientContext context;
    return host_->driver().DestroyTask(&context, request, &response);
  }
  grpc::Status Recover(const nomad::TaskHandle& handle) {
    nomad::RecoverTaskRequest request;
    *request.mutable_handle() = handle;
    nomad::RecoverTaskResponse response;
    grpc::ClientContext context;
    return host_->driver().RecoverTask(&context, request, &response);
  }
  nomad::WaitTaskResponse Wait() {
    nomad::WaitTaskRequest request;
    request.set_task_id(kId);
    nomad::WaitTaskResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    EXPECT_THAT(host_->driver().WaitTask(&context, request, &response), Succeeded());
    return response;
  }
  nomad::InspectTaskResponse Inspect() {
    nomad::InspectTaskRequest request;
    request.set_task_id(kId);
    nomad::InspectTaskResponse response;
    grpc::ClientContext context;
    EXPECT_THAT(host_->driver().InspectTask(&context, request, &response), Succeeded());
    return response;
  }

  grpc::Status Exec(const std::vector<std::string>& command, nomad::ExecTaskResponse* response,
                    std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    nomad::ExecTaskRequest request;
    request.set_task_id(kId);
    for (const std::string& argument : command) request.add_command(argument);
    request.mutable_timeout()->set_seconds(timeout.count() / 1000);
    request.mutable_timeout()->set_nanos(static_cast<int>(timeout.count() % 1000) * 1'000'000);
    grpc::ClientContext context;
    return host_->driver().ExecTask(&context, request, response);
  }

  static constexpr char kId[] = "alloc/agent/1";
  const TempDir dir_;
  std::unique_ptr<PluginHost> host_;
  nomad::TaskHandle handle_;
};

TEST_F(Driver, SaysWhoItIs) {
  base_proto::PluginInfoResponse info;
  grpc::ClientContext context;
  ASSERT_THAT(host_->base().PluginInfo(&context, {}, &info), Succeeded());
  EXPECT_EQ(info.type(), base_proto::DRIVER);
  EXPECT_EQ(info.name(), "jenkins-agent");
  EXPECT_THAT(info.plugin_api_versions(), ElementsAre("v0.1.0"));
}

TEST_F(Driver, WithLogFilesOfItsOwnItAsksForNoLogHelperAndOpensNoFifo) {
  EXPECT_OK(host_->Kill());
  Launch("driver");
  nomad::CapabilitiesResponse capabilities;
  grpc::ClientContext context;
  ASSERT_THAT(host_->driver().Capabilities(&context, {}, &capabilities), Succeeded());
  EXPECT_TRUE(capabilities.capabilities().disable_log_collection());

  const std::string logs = dir_.path() + "/allocs/alloc/logs";
  nomad::TaskConfig config = Config("/bin/sh", {"-c", "echo out; echo err >&2"});
  config.set_stdout_path(logs + "/.agent.stdout.fifo");
  config.set_stderr_path(logs + "/.agent.stderr.fifo");
  nomad::StartTaskResponse response;
  ASSERT_THAT(Start(config, &response), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(*ReadFile(logs + "/agent.stdout.0"), "out\n");
  EXPECT_EQ(*ReadFile(logs + "/agent.stderr.0"), "err\n");
  EXPECT_FALSE(std::filesystem::exists(config.stdout_path()));
}

TEST_F(Driver, CapabilitiesAndSchemaNeedNoTask) {
  nomad::CapabilitiesResponse capabilities;
  grpc::ClientContext context;
  ASSERT_THAT(host_->driver().Capabilities(&context, {}, &capabilities), Succeeded());
  EXPECT_EQ(capabilities.capabilities().fs_isolation(), nomad::DriverCapabilities::IMAGE);
  EXPECT_TRUE(capabilities.capabilities().send_signals());
  EXPECT_TRUE(capabilities.capabilities().exec());
  EXPECT_TRUE(capabilities.capabilities().dynamic_workload_users());
  EXPECT_FALSE(capabilities.capabilities().must_create_network());
  EXPECT_FALSE(capabilities.capabilities().disable_log_collection());

  nomad::TaskConfigSchemaResponse schema;
  grpc::ClientContext schema_context;
  ASSERT_THAT(host_->driver().TaskConfigSchema(&schema_context, {}, &schema), Succeeded());
  EXPECT_TRUE(schema.spec().object().attributes().contains("agent"));
}

TEST_F(Driver, FingerprintComesAtOnceAndStaysOpen) {
  grpc::ClientContext context;
  const auto stream = host_->driver().Fingerprint(&context, {});
  nomad::FingerprintResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.health(), nomad::FingerprintResponse::HEALTHY)
      << response.health_description();
  EXPECT_EQ(response.attributes().at("driver.jenkins-agent").string_val(), "1");
  context.TryCancel();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(Driver, ExitCodeIsToldToEveryWaiterUntilDestroy) {
  StartOk("/bin/sh", {"-c", "exit 7"});
  nomad::WaitTaskResponse other;
  std::thread concurrent([&] { other = Wait(); });
  EXPECT_EQ(Wait().result().exit_code(), 7);
  concurrent.join();
  EXPECT_EQ(other.result().exit_code(), 7);
  EXPECT_EQ(Wait().err(), "");
  EXPECT_EQ(Inspect().task().state(), nomad::EXITED);
  ASSERT_THAT(Destroy(/*force=*/false), Succeeded());
  EXPECT_THAT(Destroy(), Succeeded());
}

TEST_F(Driver, TheHandleHoldsNoEnvironmentAndEnoughToRecover) {
  StartOk("/bin/sleep", {"60"});
  EXPECT_GE(handle_.version(), 1);
  EXPECT_EQ(handle_.config().id(), kId);
  EXPECT_EQ(handle_.state(), nomad::RUNNING);
  EXPECT_THAT(handle_.SerializeAsString(), Not(HasSubstr("s3cret")));
}

TEST_F(Driver, AStartThatFailsSaysWhyAndLeavesNothing) {
  nomad::StartTaskResponse response;
  const grpc::Status status = Start(Config("/bin/nope", {}), &response);
  EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("/bin/nope: No such file or directory"));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/state/tasks"));

  nomad::TaskConfig root = Config("/bin/sleep", {"60"});
  root.set_user("root");
  EXPECT_THAT(Start(root, &response).error_message(), HasSubstr("allow_root"));
  nomad::TaskConfig nothing = Config("/bin/sleep", {});
  nothing.set_msgpack_driver_config("\x80");
  EXPECT_THAT(Start(nothing, &response).error_message(), HasSubstr("no program"));
}

TEST_F(Driver, StopSignalsThenKills) {
  StartOk("/bin/sh", {"-c", "trap '' TERM; echo ready > /local/ready; while :; do sleep 1; done"});
  ASSERT_TRUE(
      WaitFor([&] { return std::filesystem::exists(dir_.path() + "/allocs/agent/local/ready"); }));
  ASSERT_THAT(Stop("SIGTERM", 1), Succeeded());
  const nomad::WaitTaskResponse end = Wait();
  EXPECT_EQ(end.result().exit_code(), 137);
  EXPECT_EQ(end.result().signal(), SIGKILL);
  EXPECT_THAT(Stop("SIGTERM", 1), Succeeded());
}

TEST_F(Driver, JoinsTheNetworkNamespaceThatNomadMade) {
  ASSERT_OK_AND_ASSIGN(const Subprocess holder,
                       jenkins_agent::Start({"/usr/bin/unshare", "-n", "/bin/sleep", "60"}, {}));
  const std::string path = absl::StrCat("/proc/", holder.pid, "/ns/net");
  const auto name = [](const std::string& link) {
    std::error_code ignored;
    return std::filesystem::read_symlink(link, ignored).string();
  };
  ASSERT_TRUE(WaitFor([&] { return name(path) != name("/proc/self/ns/net"); }));
  nomad::TaskConfig config = Config("/bin/sh", {"-c", "readlink /proc/self/ns/net > /local/net"});
  config.mutable_network_isolation_spec()->set_mode(nomad::NetworkIsolationSpec::GROUP);
  config.mutable_network_isolation_spec()->set_path(path);
  nomad::StartTaskResponse response;
  ASSERT_THAT(Start(config, &response), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 0);
  ASSERT_OK_AND_ASSIGN(const std::string joined, ReadFile(dir_.path() + "/allocs/agent/local/net"));
  EXPECT_EQ(joined, name(path) + "\n");

  ASSERT_THAT(Destroy(), Succeeded());
  config.mutable_network_isolation_spec()->set_path("/run/netns/none");
  EXPECT_THAT(Start(config, &response).error_message(), HasSubstr("/run/netns/none"));
  ASSERT_EQ(::kill(holder.pid, SIGKILL), 0);
  EXPECT_OK(jenkins_agent::Wait(holder));
}

TEST_F(Driver, StopAndDestroyOfAnUnknownTaskAreFine) {
  EXPECT_THAT(Stop("SIGTERM", 1), Succeeded());
  EXPECT_THAT(Destroy(), Succeeded());
  EXPECT_THAT(Stop("SIGNOPE", 1).error_message(), HasSubstr("unknown signal 'SIGNOPE'"));
}

TEST_F(Driver, ANewPluginRecoversTheSameProcess) {
  StartOk("/bin/sleep", {"60"});
  const std::string pid = Inspect().driver().attributes().at("pid");
  ASSERT_OK(host_->Crash());
  Launch();
  handle_.mutable_config()->clear_msgpack_driver_config();  // as after a restart of the agent
  ASSERT_THAT(Recover(handle_), Succeeded());
  ASSERT_THAT(Recover(handle_), Succeeded());
  EXPECT_EQ(Inspect().driver().attributes().at("pid"), pid);
  ASSERT_THAT(Stop("", 10), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 143);
}

TEST_F(Driver, AnExitWhileThePluginWasAwayIsNotLost) {
  StartOk("/bin/sh", {"-c", "until [ -e /local/go ]; do sleep 0.1; done; exit 5"});
  ASSERT_OK(host_->Crash());
  ASSERT_OK(WriteFileAtomic(dir_.path() + "/allocs/agent/local/go", "", 0644));
  ASSERT_TRUE(WaitFor([&] {
    for (const auto& task : std::filesystem::directory_iterator(dir_.path() + "/state/tasks")) {
      if (std::filesystem::exists(task.path() / "exit.pb")) return true;
    }
    return false;
  }));
  Launch();
  ASSERT_THAT(Recover(handle_), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 5);
}

TEST_F(Driver, RecoverRefusesForeignState) {
  nomad::TaskHandle foreign;
  foreign.set_version(1);
  foreign.mutable_config()->set_id("other/agent/9");
  foreign.set_driver_state("not ours");
  EXPECT_THAT(Recover(foreign).error_message(), HasSubstr("damaged"));
}

TEST_F(Driver, StatsComeAtOnceWithWhatWasMeasured) {
  StartOk("/bin/sleep", {"60"});
  nomad::TaskStatsRequest request;
  request.set_task_id(kId);
  request.mutable_collection_interval()->set_nanos(200'000'000);
  grpc::ClientContext context;
  const auto stream = host_->driver().TaskStats(&context, request);
  nomad::TaskStatsResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.stats().has_timestamp());
  EXPECT_GT(response.stats().agg_resource_usage().memory().usage(), 0u);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_THAT(response.stats().agg_resource_usage().cpu().measured_fields(),
              Contains(nomad::CPUUsage::PERCENT));
  context.TryCancel();
}

TEST_F(Driver, EventStreamStaysOpenUntilCancelled) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto stream = host_->driver().TaskEvents(&context, {});
  nomad::DriverTaskEvent event;
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(Driver, WhatIsNotSupportedSaysSo) {
  nomad::CreateNetworkResponse response;
  grpc::ClientContext context;
  const grpc::Status status = host_->driver().CreateNetwork(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("is not supported"));
}

TEST_F(Driver, ExecRunsWithTheTasksEnvironmentAndStderrIsMerged) {
  StartOk("/bin/sleep", {"60"});
  nomad::ExecTaskResponse response;
  ASSERT_THAT(Exec({"/bin/sh", "-c", "echo $TOKEN; echo bad >&2; exit 3"}, &response), Succeeded());
  EXPECT_EQ(response.stdout(), "s3cret\nbad\n");
  EXPECT_EQ(response.stderr(), "");
  EXPECT_EQ(response.result().exit_code(), 3);
  ASSERT_THAT(Exec({"/bin/sh", "-c", "kill -USR1 $$"}, &response), Succeeded());
  EXPECT_EQ(response.result().exit_code(), 128 + SIGUSR1);
  EXPECT_EQ(response.result().signal(), SIGUSR1);
}

TEST_F(Driver, ExecErrorsAreClearAndNeverLookLikeADeadPlugin) {
  nomad::ExecTaskResponse response;
  EXPECT_EQ(Exec({"true"}, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  StartOk("/bin/sleep", {"60"});
  EXPECT_EQ(Exec({"nope"}, &response).error_message(), "exec nope: No such file or directory");
  EXPECT_EQ(Exec({}, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status late =
      Exec({"/bin/sh", "-c", "sleep 60"}, &response, std::chrono::milliseconds(200));
  EXPECT_EQ(late.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_THAT(Stop("SIGKILL", 5), Succeeded());
  const grpc::Status ended = Exec({"true"}, &response);
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ended.error_message(), "the task has ended");
}

TEST_F(Driver, AnExecStreamWithoutSetupIsRefused) {
  StartOk("/bin/sleep", {"60"});
  for (const bool send_something : {true, false}) {
    grpc::ClientContext context;
    const auto stream = host_->driver().ExecTaskStreaming(&context);
    nomad::ExecTaskStreamingRequest request;
    request.mutable_tty_size()->set_height(1);
    if (send_something) stream->Write(request);
    stream->WritesDone();
    nomad::ExecTaskStreamingResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(Driver, ClosingTheInputOfATerminalIsItsEndOfFile) {
  StartOk("/bin/sleep", {"60"});
  grpc::ClientContext context;
  const auto stream = host_->driver().ExecTaskStreaming(&context);
  nomad::ExecTaskStreamingRequest request;
  request.mutable_setup()->set_task_id(kId);
  request.mutable_setup()->set_tty(true);
  for (const char* argument : {"/bin/sh", "-c", "cat; echo end"}) {
    request.mutable_setup()->add_command(argument);
  }
  request.mutable_stdin()->set_data("half a line");
  request.mutable_stdin()->set_close(true);
  ASSERT_TRUE(stream->Write(request));
  std::string text;
  nomad::ExecTaskStreamingResponse response;
  while (stream->Read(&response)) text += response.stdout().data();
  EXPECT_THAT(stream->Finish(), Succeeded());
  EXPECT_THAT(text, HasSubstr("half a line"));
  EXPECT_THAT(text, ::testing::EndsWith("end\r\n"));
  EXPECT_TRUE(response.exited());
}

TEST_F(Driver, ACrashOfThePluginEndsSessionsAndTheNextOneServesTheTask) {
  StartOk("/bin/sleep", {"60"});
  grpc::ClientContext context;
  const auto stream = host_->driver().ExecTaskStreaming(&context);
  nomad::ExecTaskStreamingRequest request;
  request.mutable_setup()->set_task_id(kId);
  for (const char* argument : {"/bin/sh", "-c", "echo on; exec sleep 61"}) {
    request.mutable_setup()->add_command(argument);
  }
  ASSERT_TRUE(stream->Write(request));
  nomad::ExecTaskStreamingResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.stdout().data(), "on\n");
  ASSERT_OK(host_->Crash());
  EXPECT_FALSE(stream->Finish().ok());
  Launch();
  ASSERT_THAT(Recover(handle_), Succeeded());
  EXPECT_TRUE(WaitFor([&] {
    nomad::ExecTaskResponse processes;
    EXPECT_THAT(Exec({"/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"}, &processes),
                Succeeded());
    return processes.stdout().find("sleep 61") == std::string::npos &&
           processes.stdout().find("sleep 60") != std::string::npos;
  }));
}

TEST_F(Driver, AnswersOnlyRealConfigErrorsAtSetConfig) {
  base_proto::SetConfigRequest request;
  request.set_msgpack_config(PluginConfigBytes("relative/dir", "nomad"));
  base_proto::SetConfigResponse response;
  grpc::ClientContext context;
  EXPECT_THAT(host_->base().SetConfig(&context, request, &response).error_message(),
              HasSubstr("state_dir"));
}

}  // namespace
}  // namespace jenkins_agent
