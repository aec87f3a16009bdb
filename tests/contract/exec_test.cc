// ExecTask and ExecTaskStreaming beyond Nomad's own cases, which tests/nomad/exec_test.go runs
// (nomad-driver-protocol.md 5.12, 5.13).
#include <signal.h>

#include <string>
#include <vector>

#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

class Exec : public TaskTest {
 protected:
  void StartSleeper() {
    nomad::TaskConfig config = host_.Config(kId, "exec sleep 60");
    (*config.mutable_env())["TOKEN"] = "s3cret";
    Start(config);
  }
  grpc::Status Run(const std::vector<std::string>& command, nomad::ExecTaskResponse* response,
                   std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    return host_.Exec(kId, command, timeout, response);
  }
};

TEST_F(Exec, RunsWithTheTasksEnvironmentAndStderrIsMerged) {
  StartSleeper();
  nomad::ExecTaskResponse response;
  ASSERT_THAT(Run({"/bin/sh", "-c", "echo $TOKEN; echo bad >&2; exit 3"}, &response), Succeeded());
  EXPECT_EQ(response.stdout(), "s3cret\nbad\n");
  EXPECT_EQ(response.stderr(), "");
  EXPECT_EQ(response.result().exit_code(), 3);
  ASSERT_THAT(Run({"/bin/sh", "-c", "kill -USR1 $$"}, &response), Succeeded());
  EXPECT_EQ(response.result().exit_code(), 128 + SIGUSR1);
  EXPECT_EQ(response.result().signal(), SIGUSR1);
}

TEST_F(Exec, ErrorsAreClearAndNeverLookLikeADeadPlugin) {
  nomad::ExecTaskResponse response;
  EXPECT_EQ(Run({"true"}, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  StartSleeper();
  EXPECT_EQ(Run({"nope"}, &response).error_message(), "exec nope: No such file or directory");
  EXPECT_EQ(Run({}, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status late =
      Run({"/bin/sh", "-c", "sleep 60"}, &response, std::chrono::milliseconds(200));
  EXPECT_EQ(late.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_THAT(host_.Stop(kId, "SIGKILL", 5'000), Succeeded());
  const grpc::Status ended = Run({"true"}, &response);
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ended.error_message(), "the task has ended");
}

TEST_F(Exec, AStreamWithoutSetupIsRefused) {
  StartSleeper();
  for (const bool send_something : {true, false}) {
    grpc::ClientContext context;
    const auto stream = host_.plugin().driver().ExecTaskStreaming(&context);
    nomad::ExecTaskStreamingRequest request;
    request.mutable_tty_size()->set_height(1);
    if (send_something) stream->Write(request);
    stream->WritesDone();
    nomad::ExecTaskStreamingResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(Exec, ClosingTheInputOfATerminalIsItsEndOfFile) {
  StartSleeper();
  grpc::ClientContext context;
  const auto stream = host_.plugin().driver().ExecTaskStreaming(&context);
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

TEST_F(Exec, ACrashOfThePluginEndsSessionsAndTheNextOneServesTheTask) {
  StartSleeper();
  grpc::ClientContext context;
  const auto stream = host_.plugin().driver().ExecTaskStreaming(&context);
  nomad::ExecTaskStreamingRequest request;
  request.mutable_setup()->set_task_id(kId);
  for (const char* argument : {"/bin/sh", "-c", "echo on; exec sleep 61"}) {
    request.mutable_setup()->add_command(argument);
  }
  ASSERT_TRUE(stream->Write(request));
  nomad::ExecTaskStreamingResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.stdout().data(), "on\n");
  ASSERT_OK(host_.Crash());
  EXPECT_FALSE(stream->Finish().ok());
  ASSERT_OK(host_.Launch());
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_TRUE(WaitFor([&] {
    nomad::ExecTaskResponse processes;
    EXPECT_THAT(Run({"/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"}, &processes),
                Succeeded());
    return processes.stdout().find("sleep 61") == std::string::npos &&
           processes.stdout().find("sleep 60") != std::string::npos;
  }));
}

}  // namespace
}  // namespace jenkins_agent
