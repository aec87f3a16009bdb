// The contract with Nomad's client, call by call (nomad-driver-protocol.md 5 and 9), against the
// plugin's own file.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/subprocess.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

namespace base_proto = hashicorp::nomad::plugins::base::proto;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class Driver : public TaskTest {};

TEST_F(Driver, SaysWhoItIs) {
  base_proto::PluginInfoResponse info;
  grpc::ClientContext context;
  ASSERT_THAT(host_.plugin().base().PluginInfo(&context, {}, &info), Succeeded());
  EXPECT_EQ(info.type(), base_proto::DRIVER);
  EXPECT_EQ(info.name(), "jenkins-agent");
  EXPECT_THAT(info.plugin_api_versions(), ElementsAre("v0.1.0"));
}

TEST_F(Driver, WithLogFilesOfItsOwnItAsksForNoLogHelperAndOpensNoFifo) {
  ASSERT_OK(host_.Quit());
  ASSERT_OK(host_.Launch({.log_collection = "driver"}));
  nomad::CapabilitiesResponse capabilities;
  grpc::ClientContext context;
  ASSERT_THAT(host_.plugin().driver().Capabilities(&context, {}, &capabilities), Succeeded());
  EXPECT_TRUE(capabilities.capabilities().disable_log_collection());

  const std::string logs = host_.Logs();
  nomad::TaskConfig config = host_.Config(kId, "echo out; echo err >&2");
  config.set_stdout_path(logs + "/.agent.stdout.fifo");
  config.set_stderr_path(logs + "/.agent.stderr.fifo");
  Start(config);
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(*ReadFile(logs + "/agent.stdout.0"), "out\n");
  EXPECT_EQ(*ReadFile(logs + "/agent.stderr.0"), "err\n");
  EXPECT_FALSE(std::filesystem::exists(config.stdout_path()));
}

TEST_F(Driver, CapabilitiesAndSchemaNeedNoTask) {
  nomad::CapabilitiesResponse capabilities;
  grpc::ClientContext context;
  ASSERT_THAT(host_.plugin().driver().Capabilities(&context, {}, &capabilities), Succeeded());
  EXPECT_EQ(capabilities.capabilities().fs_isolation(), nomad::DriverCapabilities::IMAGE);
  EXPECT_TRUE(capabilities.capabilities().send_signals());
  EXPECT_TRUE(capabilities.capabilities().exec());
  EXPECT_TRUE(capabilities.capabilities().dynamic_workload_users());
  EXPECT_FALSE(capabilities.capabilities().must_create_network());
  EXPECT_FALSE(capabilities.capabilities().disable_log_collection());

  nomad::TaskConfigSchemaResponse schema;
  grpc::ClientContext schema_context;
  ASSERT_THAT(host_.plugin().driver().TaskConfigSchema(&schema_context, {}, &schema), Succeeded());
  EXPECT_TRUE(schema.spec().object().attributes().contains("agent"));
}

TEST_F(Driver, FingerprintComesAtOnceAndStaysOpen) {
  grpc::ClientContext context;
  const auto stream = host_.plugin().driver().Fingerprint(&context, {});
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
  Start("exit 7");
  nomad::WaitTaskResponse other;
  std::thread concurrent([&] { other = Wait(); });
  EXPECT_EQ(Wait().result().exit_code(), 7);
  concurrent.join();
  EXPECT_EQ(other.result().exit_code(), 7);
  EXPECT_EQ(Wait().err(), "");
  EXPECT_EQ(Inspect().task().state(), nomad::EXITED);
  ASSERT_THAT(host_.Destroy(kId, /*force=*/false), Succeeded());
  EXPECT_THAT(host_.Destroy(kId), Succeeded());
}

TEST_F(Driver, TheHandleHoldsNoEnvironmentAndEnoughToRecover) {
  nomad::TaskConfig config = host_.Config(kId, "exec sleep 60");
  (*config.mutable_env())["TOKEN"] = "s3cret";
  Start(config);
  EXPECT_GE(handle_.version(), 1);
  EXPECT_EQ(handle_.config().id(), kId);
  EXPECT_EQ(handle_.state(), nomad::RUNNING);
  EXPECT_THAT(handle_.SerializeAsString(), Not(HasSubstr("s3cret")));
}

TEST_F(Driver, AStartThatFailsSaysWhyAndLeavesNothing) {
  const grpc::Status status = TryStart(host_.Config(kId, "/bin/nope", {}));
  EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("/bin/nope: No such file or directory"));
  EXPECT_EQ(host_.Leftovers(), "");

  nomad::TaskConfig root = host_.Config(kId, "/bin/sleep", {"60"});
  root.set_user("root");
  EXPECT_THAT(TryStart(root).error_message(), HasSubstr("allow_root"));
  nomad::TaskConfig nothing = host_.Config(kId, "/bin/sleep", {});
  nothing.set_msgpack_driver_config("\x80");
  EXPECT_THAT(TryStart(nothing).error_message(), HasSubstr("no program"));
}

TEST_F(Driver, StopSignalsThenKills) {
  Start("trap '' TERM; echo ready > /local/ready; while :; do sleep 1; done");
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(host_.Local("ready")); }));
  ASSERT_THAT(host_.Stop(kId, "SIGTERM", 1'000), Succeeded());
  const nomad::WaitTaskResponse end = Wait();
  EXPECT_EQ(end.result().exit_code(), 137);
  EXPECT_EQ(end.result().signal(), SIGKILL);
  EXPECT_THAT(host_.Stop(kId, "SIGTERM", 1'000), Succeeded());
}

// A pull or a removal may hold it.
TEST_F(Driver, ATaskWithoutAnImageHasNothingToDoWithTheImageStore) {
  const std::string file = host_.StateDir() + "/images/lock";
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(file); }));
  ASSERT_OK_AND_ASSIGN(const Fd lock, OpenFile(file, O_RDWR));
  ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
  Start("exit 3");
  EXPECT_EQ(Wait().result().exit_code(), 3);
  EXPECT_THAT(host_.Destroy(kId), Succeeded());
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
  nomad::TaskConfig config = host_.Config(kId, "readlink /proc/self/ns/net > /local/net");
  config.mutable_network_isolation_spec()->set_mode(nomad::NetworkIsolationSpec::GROUP);
  config.mutable_network_isolation_spec()->set_path(path);
  Start(config);
  EXPECT_EQ(Wait().result().exit_code(), 0);
  ASSERT_OK_AND_ASSIGN(const std::string joined, ReadFile(host_.Local("net")));
  EXPECT_EQ(joined, name(path) + "\n");

  ASSERT_THAT(host_.Destroy(kId), Succeeded());
  config.mutable_network_isolation_spec()->set_path("/run/netns/none");
  EXPECT_THAT(TryStart(config).error_message(), HasSubstr("/run/netns/none"));
  ASSERT_EQ(::kill(holder.pid, SIGKILL), 0);
  EXPECT_OK(jenkins_agent::Wait(holder));
}

TEST_F(Driver, StopAndDestroyOfAnUnknownTaskAreFine) {
  EXPECT_THAT(host_.Stop(kId, "SIGTERM", 1'000), Succeeded());
  EXPECT_THAT(host_.Destroy(kId), Succeeded());
  EXPECT_THAT(host_.Stop(kId, "SIGNOPE", 1'000).error_message(),
              HasSubstr("unknown signal 'SIGNOPE'"));
}

TEST_F(Driver, ANewPluginRecoversTheSameProcess) {
  Start("exec sleep 60");
  const std::string pid = Pid();
  Relaunch();
  handle_.mutable_config()->clear_msgpack_driver_config();  // as after a restart of the agent
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
  ASSERT_THAT(host_.Stop(kId, "", 10'000), Succeeded());
  EXPECT_EQ(Wait().result().exit_code(), 143);
}

TEST_F(Driver, EventStreamStaysOpenUntilCancelled) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto stream = host_.plugin().driver().TaskEvents(&context, {});
  nomad::DriverTaskEvent event;
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(Driver, WhatIsNotSupportedSaysSo) {
  nomad::CreateNetworkResponse response;
  grpc::ClientContext context;
  const grpc::Status status = host_.plugin().driver().CreateNetwork(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("is not supported"));
}

}  // namespace
}  // namespace jenkins_agent
