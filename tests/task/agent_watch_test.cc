// The plugin's watch over one agent: real processes and connections, the supervisor played.
#include "driver/task/agent_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "tests/support/requires.h"
#include "tests/task/stand_in_agent.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class AgentWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    AgentWatch::Handlers handlers;
    handlers.on_wedged = [this](const std::string& cause, uint32_t launches) {
      causes_.push_back(cause);
      launches_ = launches;
      if (successor_ == nullptr) return loop_->Quit();
      status_.set_launches(2);
      Watch(*std::exchange(successor_, nullptr));
    };
    handlers.on_news = [this](const std::string& text, bool) { news_.push_back(text); };
    handlers.ask_status = [this] {
      ++asked_;
      if (quit_when_asked_) loop_->Quit();
    };
    handlers.ask_controller = [this] {
      ++asked_controller_;
      watch_->OnController(controller_answers_);
    };
    handlers.on_worn = [this](const std::string& cause, uint32_t) {
      causes_.push_back(cause);
      loop_->Quit();
    };
    handlers.on_done = [this](uint32_t launches) {
      ++done_;
      launches_ = launches;
      loop_->Quit();
    };
    handlers.on_given_up = [this](const std::string& cause) {
      causes_.push_back(cause);
      loop_->Quit();
    };
    watch_ = std::make_unique<AgentWatch>(loop_.get(), "", std::move(handlers));
    status_.set_state(pb::RUNNING);
    status_.set_phase(pb::PHASE_CONNECTED);
    status_.set_launches(1);
    // Sixty times quicker than the default.
    status_.mutable_health()->set_wedge_timeout_ms(1000);
    status_.mutable_health()->set_controller_grace_ms(2000);
  }
  void TearDown() override { watch_.reset(); }

  void Watch(const StandInAgent& agent) {
    status_.set_payload_pid(agent.pid());
    status_.set_payload_start_time(agent.start_time());
    watch_->OnStatus(status_);
  }
  void RunUntilQuit() {
    loop_->After(seconds(30), [this] { loop_->Quit(); });
    loop_->Run();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<AgentWatch> watch_;
  pb::TaskStatus status_;
  std::vector<std::string> causes_;
  std::vector<std::string> news_;
  uint32_t launches_ = 0;
  int asked_ = 0;
  int asked_controller_ = 0;
  int done_ = 0;
  bool controller_answers_ = false;
  bool quit_when_asked_ = false;
  const StandInAgent* successor_ = nullptr;  // what the supervisor launches after the verdict
};

// Nothing comes over the network: only the process's state tells.
TEST_F(AgentWatchTest, AStoppedIdleAgentIsFound) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  const Fd peer = controller.Accept();
  Watch(agent);
  agent.Stop();
  RunUntilQuit();
  ASSERT_EQ(causes_.size(), 1u);
  EXPECT_THAT(causes_[0], HasSubstr("its process is stopped (state T)"));
  EXPECT_EQ(launches_, 1u);
}

TEST_F(AgentWatchTest, AnAgentThatReadsNoMoreIsFound) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  const Fd peer = controller.Accept();
  ASSERT_EQ(::write(peer.get(), "ping", 4), 4);
  Watch(agent);
  RunUntilQuit();
  ASSERT_EQ(causes_.size(), 1u);
  EXPECT_THAT(causes_[0], HasSubstr("does not read from the controller (4 bytes unread)"));
}

TEST_F(AgentWatchTest, AConnectionThatOnlyTheAgentBelievesInIsFound) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  controller.Accept().Reset();
  Watch(agent);
  RunUntilQuit();
  ASSERT_EQ(causes_.size(), 1u);
  EXPECT_THAT(causes_[0], HasSubstr("the controller has closed the connection"));
}

TEST_F(AgentWatchTest, AnIdleAgentIsLeftAlone) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  const Fd peer = controller.Accept();
  Watch(agent);
  loop_->After(seconds(3), [this] { loop_->Quit(); });
  RunUntilQuit();
  EXPECT_THAT(causes_, ::testing::IsEmpty());
  EXPECT_EQ(asked_, 0);
}

// 200 restarts of a controller, each of which the agent notices and waits for.
TEST_F(AgentWatchTest, AControllerThatComesAndGoesIsNoReasonToRestart) {
  constexpr int kTimes = 200;
  const Listener controller;
  const StandInAgent agent([&](int) {
    for (;;) {
      const int socket = ConnectTo(controller.port(), true);
      char bytes[64];
      while (::read(socket, bytes, sizeof(bytes)) > 0) {
      }
      ::close(socket);
    }
  });
  int connected = 0;
  Fd peer;
  const std::function<void()> serve = [&] {
    peer = controller.Accept();
    watch_->OnPhase(pb::PHASE_CONNECTED, "connected");
    if (++connected > kTimes) return loop_->Quit();
    EXPECT_EQ(::write(peer.get(), "ping", 4), 4);
    loop_->After(milliseconds(15), [&] {
      peer.Reset();
      watch_->OnPhase(pb::PHASE_TERMINATED, "terminated");
      watch_->OnPhase(pb::PHASE_LOCATING, "locating: Connection refused");
      loop_->After(milliseconds(15), serve);
    });
  };
  loop_->Post(serve);
  Watch(agent);
  RunUntilQuit();
  EXPECT_GT(connected, kTimes);
  EXPECT_THAT(causes_, ::testing::IsEmpty());
}

TEST_F(AgentWatchTest, OfAJvmThatHasEndedTheSupervisorIsAsked) {
  const StandInAgent agent([](int) {});
  quit_when_asked_ = true;
  Watch(agent);
  RunUntilQuit();
  EXPECT_EQ(asked_, 1);
  EXPECT_THAT(causes_, ::testing::IsEmpty());
}

TEST_F(AgentWatchTest, AnAgentThatDoesNotComeBackIsFoundOnceItsControllerAnswers) {
  const StandInAgent agent([](int) { ::pause(); });
  status_.set_phase(pb::PHASE_TERMINATED);
  loop_->After(seconds(3), [this] {
    EXPECT_THAT(causes_, ::testing::IsEmpty());
    EXPECT_GT(asked_controller_, 0);
    controller_answers_ = true;
  });
  Watch(agent);
  RunUntilQuit();
  ASSERT_EQ(causes_.size(), 1u);
  EXPECT_THAT(causes_[0], HasSubstr("although the controller has answered"));
}

TEST_F(AgentWatchTest, AOneShotAgentIsDoneWhenItsControllerIsStillThere) {
  const StandInAgent agent([](int) { ::pause(); });
  status_.set_one_shot(true);
  controller_answers_ = true;
  Watch(agent);
  loop_->Post([this] { watch_->OnPhase(pb::PHASE_TERMINATED, "disconnected"); });
  RunUntilQuit();
  EXPECT_EQ(done_, 1);
  EXPECT_EQ(launches_, 1u);
  EXPECT_GE(asked_controller_, 2);
}

// It comes back after an outage, and the next end of its channel is a true one.
TEST_F(AgentWatchTest, AOneShotAgentSurvivesAnOutage) {
  const StandInAgent agent([](int) { ::pause(); });
  status_.set_one_shot(true);
  status_.set_phase(pb::PHASE_LOCATING);
  Watch(agent);
  loop_->Post([this] { watch_->OnPhase(pb::PHASE_TERMINATED, "disconnected"); });
  loop_->After(milliseconds(500), [this] {
    EXPECT_EQ(asked_controller_, 1);
    controller_answers_ = true;  // the agent has not tried again yet
  });
  loop_->After(milliseconds(1500), [this] {
    EXPECT_EQ(done_, 0);
    watch_->OnPhase(pb::PHASE_CONNECTED, "connected");
    watch_->OnPhase(pb::PHASE_TERMINATED, "disconnected");
  });
  RunUntilQuit();
  EXPECT_EQ(done_, 1);
  EXPECT_THAT(causes_, ::testing::IsEmpty());
}

TEST_F(AgentWatchTest, AnOutageThatIsTooLongEndsAOneShotAgent) {
  const StandInAgent agent([](int) { ::pause(); });
  status_.set_one_shot(true);
  status_.set_phase(pb::PHASE_TERMINATED);
  Watch(agent);
  RunUntilQuit();
  EXPECT_EQ(done_, 0);
  ASSERT_EQ(causes_.size(), 1u);
  EXPECT_EQ(causes_[0],
            "one-shot agent: its controller has been away for 2 s, all that "
            "health.controller_grace allows");
}

// In a cgroup of its own, where a build has a process beside it.
TEST_F(AgentWatchTest, AnAgentThatIsTooOldIsReplacedWhenItsBuildIsOver) {
  REQUIRES_ROOT();
  ASSERT_OK_AND_ASSIGN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  const cgroups::Limits limits = {.pids = 50};
  auto cgroup = cgroups::Cgroup::Create(hierarchy,
                                        {.name = absl::StrCat("watch-test-", ::getpid(), ".task"),
                                         .extra_controllers = cgroups::ExtraControllers(limits)},
                                        limits);
  ASSERT_OK(cgroup);
  const Listener controller;
  {
    const StandInAgent agent([&](int commands) {
      if (!cgroup->Enter().ok()) return;
      const pid_t build = ::fork();
      if (build == 0) ::pause();
      ConnectTo(controller.port(), true);
      char command;
      (void)!::read(commands, &command, 1);
      ::kill(build, SIGKILL);
      ::waitpid(build, nullptr, 0);
      ::pause();
    });
    const Fd peer = controller.Accept();
    status_.set_max_age_ms(1);
    for (const std::string& dir : cgroup->dirs()) status_.add_cgroup_dirs(dir);
    Watch(agent);
    loop_->After(seconds(3), [&] {
      EXPECT_THAT(causes_, ::testing::IsEmpty());
      agent.Tell('e');
    });
    RunUntilQuit();
    ASSERT_EQ(causes_.size(), 1u);
    EXPECT_THAT(causes_[0], HasSubstr("more than agent.max_age"));
  }
  EXPECT_OK(cgroup->KillAll(seconds(10)));
  EXPECT_OK(cgroup->Remove());
}

// The time of the one before does not count against it.
TEST_F(AgentWatchTest, ItsSuccessorIsWatchedAfresh) {
  const StandInAgent first([](int) { ::pause(); });
  const StandInAgent second([](int) { ::pause(); });
  first.Stop();
  second.Stop();
  successor_ = &second;
  Watch(first);
  RunUntilQuit();
  ASSERT_EQ(causes_.size(), 2u);
  EXPECT_EQ(launches_, 2u);
}

}  // namespace
}  // namespace jenkins_agent
