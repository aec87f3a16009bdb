// Server and client of the control socket against each other, without a task.
#include "driver/supervisor/control.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/client.h"
#include "driver/supervisor/control_server.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::seconds kTimeout{10};

class ControlTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ASSERT_OK_AND_ASSIGN(dir_fd_, OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY));
    server_ =
        std::make_unique<ControlServer>(loop_.get(), [this](const pb::ControlRequest& request) {
          pb::ControlReply reply;
          if (request.has_stop()) {
            reply.set_error("cannot");
            reply.set_error_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
          }
          if (request.has_hello()) reply.mutable_status()->set_launches(42);
          if (request.has_signal()) server_.reset();  // dies before it answers
          return reply;
        });
    ASSERT_OK(server_->Listen(dir_fd_.get()));
    loop_->After(std::chrono::seconds(20), [this] {
      ADD_FAILURE() << "still waiting";
      loop_->Quit();
    });
  }
  std::unique_ptr<Control> Connect(Control::Handlers handlers = {}) {
    return Control::Create(loop_.get(), ConnectToSupervisor(dir_.path()).value(),
                           std::move(handlers));
  }
  static pb::ControlRequest Hello() {
    pb::ControlRequest request;
    request.mutable_hello()->set_watch(true);
    return request;
  }

  TempDir dir_;
  Fd dir_fd_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlTest, RepliesAndErrorsComeBackToTheirCallers) {
  auto control = Connect();
  absl::StatusOr<pb::ControlReply> hello, stop;
  pb::ControlRequest stop_request;
  stop_request.mutable_stop();
  control->Call(
      Hello(), [&](auto reply) { hello = std::move(reply); }, kTimeout);
  control->Call(
      stop_request,
      [&](auto reply) {
        stop = std::move(reply);
        loop_->Quit();
      },
      kTimeout);
  loop_->Run();
  ASSERT_OK(hello);
  EXPECT_EQ(hello->status().launches(), 42u);
  EXPECT_THAT(stop, StatusIs(absl::StatusCode::kFailedPrecondition, "cannot"));
}

TEST_F(ControlTest, KeptEventsAndTheExitReachALateWatcher) {
  for (size_t i = 0; i < ControlServer::kMaxKeptEvents + 5; ++i) {
    pb::Event event;
    event.set_message(std::to_string(i));
    server_->Publish(event);
  }
  pb::ExitRecord record;
  record.set_exit_code(9);
  server_->PublishExit(record);
  std::vector<std::string> events;
  int exit_code = 0;
  auto control = Connect({[&](const pb::Event& event) { events.push_back(event.message()); },
                          [&](const pb::ExitRecord& exit) {
                            exit_code = exit.exit_code();
                            loop_->Quit();
                          },
                          nullptr});
  control->Call(
      Hello(), [](auto) {}, kTimeout);
  loop_->Run();
  EXPECT_EQ(events.size(), ControlServer::kMaxKeptEvents);
  EXPECT_EQ(events.front(), "5");
  EXPECT_EQ(exit_code, 9);
}

TEST_F(ControlTest, AWatcherThatDoesNotReadIsDisconnectedAndOthersAreServed) {
  ASSERT_OK_AND_ASSIGN(const Fd deaf, ConnectToSupervisor(dir_.path()));
  pb::ControlRequest hello = Hello();
  hello.set_sequence(1);
  ASSERT_OK(SendPacket(deaf.get(), hello.SerializeAsString()));
  bool alone = false;
  auto control = Connect();
  control->Call(
      Hello(),
      [&](auto) {
        pb::Event event;
        event.set_message(std::string(10'000, 'x'));
        for (int i = 0; i < 1000; ++i) server_->Publish(event);
        control.reset();
        server_->NotifyWhenAlone([&] {
          alone = true;
          loop_->Quit();
        });
      },
      kTimeout);
  loop_->Run();
  EXPECT_TRUE(alone);
}

TEST_F(ControlTest, ALostSupervisorIsToldOnceAndFailsItsCalls) {
  int lost = 0;
  absl::StatusOr<pb::ControlReply> reply;
  auto control = Connect({nullptr, nullptr, [&] {
                            ++lost;
                            loop_->Post([this] { loop_->Quit(); });
                          }});
  ASSERT_OK_AND_ASSIGN(const Fd other_end, ConnectToSupervisor(dir_.path()));
  control->Call(
      Hello(),
      [&](auto) {
        control->Call(
            Hello(), [&](auto late) { reply = std::move(late); }, kTimeout);
        loop_->Post([this] { server_.reset(); });
      },
      kTimeout);
  loop_->Run();
  EXPECT_EQ(lost, 1);
}

TEST_F(ControlTest, ASilentSupervisorTimesOutAndADestroyedControlCancels) {
  ASSERT_OK_AND_ASSIGN(SocketPair pair, MakeSocketPair(SOCK_SEQPACKET));
  auto control = Control::Create(loop_.get(), std::move(pair.first), {});
  absl::StatusOr<pb::ControlReply> late, cancelled;
  control->Call(
      Hello(),
      [&](auto reply) {
        late = std::move(reply);
        control->Call(
            Hello(),
            [&](auto second) {
              cancelled = std::move(second);
              loop_->Quit();
            },
            kTimeout);
        control.reset();
      },
      std::chrono::milliseconds(10));
  loop_->Run();
  EXPECT_THAT(late, StatusIs(absl::StatusCode::kDeadlineExceeded, testing::_));
  EXPECT_THAT(cancelled, StatusIs(absl::StatusCode::kCancelled, testing::_));
}

// ---- CallSupervisors ----

TEST_F(ControlTest, ManyAreAskedAtOnceAndAnswersKeepTheOrder) {
  const TempDir silent, gone;
  ASSERT_OK_AND_ASSIGN(const Fd silent_fd, OpenFile(silent.path(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK_AND_ASSIGN(const Fd listener, ListenPacket(silent_fd.get(), kControlSocket));
  std::thread server([this] { loop_->Run(); });
  const auto replies =
      CallSupervisors({silent.path(), dir_.path(), gone.path(), dir_.path(), "/nowhere"}, Hello(),
                      std::chrono::milliseconds(500));
  loop_->Post([this] { loop_->Quit(); });
  server.join();
  ASSERT_EQ(replies.size(), 5u);
  EXPECT_THAT(replies[0], StatusIs(absl::StatusCode::kDeadlineExceeded, testing::_));
  ASSERT_OK(replies[1]);
  EXPECT_EQ(replies[1]->status().launches(), 42u);
  EXPECT_THAT(replies[2], StatusIs(absl::StatusCode::kUnavailable, testing::_));
  EXPECT_OK(replies[3]);
  EXPECT_THAT(replies[4], StatusIs(absl::StatusCode::kUnavailable, testing::_));
}

TEST_F(ControlTest, ARefusalAndADeathBeforeTheAnswerAreToldApart) {
  std::thread server([this] { loop_->Run(); });
  pb::ControlRequest stop;
  stop.mutable_stop();
  const auto refused = CallSupervisors({dir_.path()}, stop, kTimeout);
  pb::ControlRequest note;
  note.mutable_note();
  const auto done = CallSupervisors({dir_.path()}, note, kTimeout);
  loop_->Post([this] { loop_->Quit(); });
  server.join();
  EXPECT_OK(done[0]);
  EXPECT_THAT(refused[0],
              StatusIs(absl::StatusCode::kFailedPrecondition, testing::HasSubstr("cannot")));

  const TempDir dying;
  ASSERT_OK_AND_ASSIGN(const Fd dying_fd, OpenFile(dying.path(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK_AND_ASSIGN(const Fd listener, ListenPacket(dying_fd.get(), kControlSocket));
  std::thread death(
      [&listener] { const Fd taken(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)); });
  const auto died = CallSupervisors({dying.path()}, stop, kTimeout);
  death.join();
  EXPECT_THAT(died[0], StatusIs(absl::StatusCode::kUnavailable, testing::_));
}

}  // namespace
}  // namespace jenkins_agent
