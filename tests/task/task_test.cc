// A task of which the test plays the supervisor.
#include "driver/task/task.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/digest.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/process.h"
#include "driver/base/subprocess.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"
#include "tests/tools/fake_controller.h"
#include "tests/tools/fake_jar.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

class TaskTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    thread_ = std::thread([this] { loop_->Run(); });
    shared_ = {loop_.get(), loop_.get(), &events_, &tools_, &metrics_};
    record_.set_task_id("alloc/agent/1");
    record_.set_task_dir(dir_.path());
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    loop_->Quit();
    thread_.join();
  }
  std::shared_ptr<Task> MakeTask() { return std::make_shared<Task>(record_, shared_); }

  // Answers each request by what `answer` sends through the socket, until the task lets go of it.
  static std::thread Supervisor(Fd socket,
                                std::function<void(int socket, const pb::ControlRequest&)> answer) {
    return std::thread([socket = std::move(socket), answer = std::move(answer)] {
      for (;;) {
        const absl::StatusOr<Packet> packet = ReceivePacket(socket.get());
        pb::ControlRequest request;
        if (!packet.ok() || !request.ParseFromString(packet->data)) return;
        answer(socket.get(), request);
      }
    });
  }
  static void Send(int socket, const pb::ControlReply& reply) {
    EXPECT_OK(SendPacket(socket, reply.SerializeAsString()));
  }

  const TempDir dir_;
  pb::TaskRecord record_;
  EventBus events_;
  Metrics metrics_;
  JarWorkerProgram tools_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  Task::Shared shared_;
};

TEST_F(TaskTest, AnExitRightBehindTheFirstAnswerIsNotForgotten) {
  // The two threads that take answer and exit meet anew each time.
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
    std::thread supervisor =
        Supervisor(std::move(sockets.second), [](int socket, const pb::ControlRequest& request) {
          pb::ControlReply answer;
          answer.set_sequence(request.sequence());
          answer.mutable_status()->set_state(pb::RUNNING);
          Send(socket, answer);
          pb::ControlReply news;
          news.mutable_exit()->set_exit_code(7);
          Send(socket, news);
        });
    auto task = MakeTask();
    ASSERT_OK(task->Attach(std::move(sockets.first)));
    ASSERT_TRUE(WaitFor([&] { return task->exited(); }));
    const absl::StatusOr<pb::TaskStatus> status = task->Status();
    task.reset();
    supervisor.join();
    ASSERT_OK(status);
    ASSERT_EQ(status->state(), pb::EXITED) << "in round " << i;
  }
}

TEST_F(TaskTest, AKilledSupervisorIsSeenBeforeTheCallReturns) {
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  ASSERT_OK_AND_ASSIGN(const Subprocess supervisor,
                       Start({"/bin/sleep", "600"}, {.fds = {{sockets.second.get(), 3}}}));
  record_.set_supervisor_pid(supervisor.pid);
  ASSERT_OK_AND_ASSIGN(const uint64_t start_time, ProcessStartTime(supervisor.pid));
  record_.set_supervisor_start_time(start_time);
  auto task = MakeTask();
  std::thread attach([&, socket = std::move(sockets.first)]() mutable {
    EXPECT_OK(task->Attach(std::move(socket)));  // is told the end, and not an answer
  });
  sockets.second.Reset();
  EXPECT_OK(task->KillSupervisor());
  ASSERT_TRUE(task->exited());
  EXPECT_THAT(task->exit_record()->message(), HasSubstr("was killed"));
  EXPECT_TRUE(::access((dir_.path() + "/exit.pb").c_str(), F_OK) == 0);
  attach.join();
  EXPECT_OK(Wait(supervisor));
}

TEST_F(TaskTest, TheCleanUpOfALostTaskDoesNotHoldUpTheOthersNews) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<EventLoop> cleaner, EventLoop::Create());
  shared_.cleaner = cleaner.get();  // is busy for as long as nobody runs it
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  auto task = MakeTask();
  task->Follow(std::move(sockets.first));
  sockets.second.Reset();
  std::promise<void> later;
  loop_->Post([&] { loop_->After(std::chrono::milliseconds(50), [&] { later.set_value(); }); });
  later.get_future().wait();
  EXPECT_FALSE(task->exited());
  std::thread thread([&] { cleaner->Run(); });
  EXPECT_TRUE(WaitFor([&] { return task->exited(); }));
  EXPECT_THAT(task->exit_record()->message(), HasSubstr("was killed"));
  cleaner->Quit();
  thread.join();
}

TEST_F(TaskTest, GivenUpWhileItsJarIsFetchedItEndsTheWorkerOnTheLoop) {
  ASSERT_OK_AND_ASSIGN(tools_.executable, OpenFile(TOOLS_PROGRAM, O_RDONLY));
  tools_.cache_dir = dir_.path();
  std::promise<void> waiting;
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor =
      Supervisor(std::move(sockets.second), [&](int socket, const pb::ControlRequest& request) {
        pb::ControlReply answer;
        answer.set_sequence(request.sequence());
        if (request.has_hello()) {
          answer.mutable_status()->set_state(pb::WAITING_FOR_JAR);
          answer.mutable_status()->add_agent_urls("http://127.0.0.1:1/");  // nobody is there
        }
        Send(socket, answer);
        if (request.has_note()) std::exchange(waiting, std::promise<void>()).set_value();
      });
  auto task = MakeTask();
  std::future<void> worker_runs = waiting.get_future();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  worker_runs.wait();
  task.reset();
  supervisor.join();
  EXPECT_TRUE(WaitFor([] { return ::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD; }))
      << "the worker still runs";
}

TEST_F(TaskTest, AJarThatTheJobNamesIsSentWithItsPath) {
  ASSERT_OK_AND_ASSIGN(tools_.executable, OpenFile(TOOLS_PROGRAM, O_RDONLY));
  const std::string jar = dir_.path() + "/agent.jar";
  ASSERT_OK(WriteFileAtomic(jar, CurrentAgentJar(), 0644));
  std::promise<pb::JarInfo> heard;
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor =
      Supervisor(std::move(sockets.second), [&](int socket, const pb::ControlRequest& request) {
        pb::ControlReply answer;
        answer.set_sequence(request.sequence());
        answer.mutable_status()->set_state(pb::WAITING_FOR_JAR);
        answer.mutable_status()->set_jar_path(jar);
        answer.mutable_status()->set_init_pid(::getpid());
        Send(socket, answer);
        if (request.has_jar_ready()) heard.set_value(request.jar_ready().jar());
        if (request.has_stop()) heard.set_value({});
      });
  auto task = MakeTask();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  EXPECT_EQ(heard.get_future().get().path(), jar);
  task.reset();
  supervisor.join();
}

// Nomad keeps ten events of a task.
TEST_F(TaskTest, RestartsAndReconnectionsAreOneEventOfEachInTenMinutes) {
  Mutex mutex;
  std::vector<std::string> told;
  events_.Subscribe([&](const TaskEvent& event) {
    MutexLock lock(mutex);
    told.push_back(event.message);
  });
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor =
      Supervisor(std::move(sockets.second), [](int socket, const pb::ControlRequest& request) {
        pb::ControlReply answer;
        answer.set_sequence(request.sequence());
        answer.mutable_status()->mutable_timings()->set_connected_ms(1);
        Send(socket, answer);
        for (uint32_t i = 1; i <= 20; ++i) {
          pb::ControlReply restart;
          restart.mutable_event()->set_message("agent 'a' hangs; restarting it in place");
          restart.mutable_event()->set_restarts(i);
          Send(socket, restart);
          pb::ControlReply wedged;
          wedged.mutable_event()->set_message("wedged: no thread");
          wedged.mutable_event()->set_phase(pb::PHASE_WEDGED);
          Send(socket, wedged);
          pb::ControlReply terminated;
          terminated.mutable_event()->set_message("terminated");
          terminated.mutable_event()->set_phase(pb::PHASE_TERMINATED);
          Send(socket, terminated);
        }
        pb::ControlReply news;
        news.mutable_exit()->set_exit_code(7);
        Send(socket, news);
      });
  auto task = MakeTask();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  ASSERT_TRUE(WaitFor([&] { return task->exited(); }));
  task.reset();
  supervisor.join();
  MutexLock lock(mutex);
  EXPECT_THAT(told, testing::ElementsAre("agent 'a' hangs; restarting it in place", "terminated"));
}

// The whole way: a real process that is stopped, its connection to nobody, and the verdict.
TEST_F(TaskTest, AStoppedJvmBecomesAVerdict) {
  ASSERT_OK_AND_ASSIGN(const Subprocess jvm, Start({"/bin/sleep", "600"}, {}));
  ASSERT_OK_AND_ASSIGN(const uint64_t start_time, ProcessStartTime(jvm.pid));
  ASSERT_EQ(::kill(jvm.pid, SIGSTOP), 0);
  std::promise<pb::ControlRequest::Verdict> heard;
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor =
      Supervisor(std::move(sockets.second),
                 [&, told = false](int socket, const pb::ControlRequest& request) mutable {
                   pb::ControlReply answer;
                   answer.set_sequence(request.sequence());
                   pb::TaskStatus& status = *answer.mutable_status();
                   status.set_state(pb::RUNNING);
                   status.set_launches(3);
                   status.set_payload_pid(jvm.pid);
                   status.set_payload_start_time(start_time);
                   status.mutable_health()->set_wedge_timeout_ms(200);
                   Send(socket, answer);
                   if (request.has_verdict() && !std::exchange(told, true)) {
                     heard.set_value(request.verdict());
                   }
                 });
  auto task = MakeTask();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  const pb::ControlRequest::Verdict verdict = heard.get_future().get();
  EXPECT_THAT(verdict.cause(), HasSubstr("its process is stopped (state T)"));
  EXPECT_EQ(verdict.launches(), 3u);
  task.reset();
  supervisor.join();
  ASSERT_EQ(::kill(jvm.pid, SIGKILL), 0);
  EXPECT_OK(Wait(jvm));
}

// A controller that was upgraded under its agents.
class NewerJar : public TaskTest {
 protected:
  void SetUp() override {
    TaskTest::SetUp();
    ASSERT_OK_AND_ASSIGN(tools_.executable, OpenFile(TOOLS_PROGRAM, O_RDONLY));
    tools_.cache_dir = dir_.path() + "/cache";
    ASSERT_OK(MakeDirs(StatePaths::JarDir(dir_.path())));
    events_.Subscribe([this](const TaskEvent& event) {
      MutexLock lock(mutex_);
      told_.push_back(event.message);
    });
  }
  std::string Jar() const { return StatePaths::JarDir(dir_.path()) + "/agent.jar"; }
  bool Told(const std::string& part) {
    MutexLock lock(mutex_);
    return std::any_of(told_.begin(), told_.end(),
                       [&](const std::string& text) { return absl::StrContains(text, part); });
  }
  // An agent that is told so, twice; what the plugin asks for meanwhile is in `verdicts_`.
  std::thread Refused(Fd socket, const FakeController& controller) {
    return Supervisor(std::move(socket),
                      [this, url = controller.url()](int fd, const pb::ControlRequest& request) {
                        pb::ControlReply answer;
                        answer.set_sequence(request.sequence());
                        pb::TaskStatus& status = *answer.mutable_status();
                        status.set_state(pb::RUNNING);
                        status.set_phase(pb::PHASE_LOCATING);
                        status.set_phase_detail("Agent version 9 or newer is required.");
                        status.set_launches(1);
                        status.add_agent_urls(url);
                        Send(fd, answer);
                        if (request.has_verdict()) {
                          MutexLock lock(mutex_);
                          verdicts_.push_back(request.verdict());
                        }
                        if (!request.has_hello() || std::exchange(refused_, true)) return;
                        pb::ControlReply news;
                        news.mutable_event()->set_phase(pb::PHASE_LOCATING);
                        news.mutable_event()->set_message(
                            "locating the controller: Agent version 9 or newer is required.");
                        Send(fd, news);
                      });
  }
  static FakeController::Handler Offers(const std::string& jar) {
    return [jar](const std::string&, const FakeController::Send& send) {
      send(FakeController::Answer("200 OK", "X-Jenkins-JNLP-Port: 1\r\n", jar));
    };
  }

  Mutex mutex_;
  std::vector<std::string> told_ ABSL_GUARDED_BY(mutex_);
  std::vector<pb::ControlRequest::Verdict> verdicts_ ABSL_GUARDED_BY(mutex_);
  bool refused_ = false;  // the supervisor's thread
};

TEST_F(NewerJar, IsFetchedWhenTheControllerDemandsIt) {
  ASSERT_OK(WriteFileAtomic(Jar(), "an old one", 0444));
  const FakeController controller(Offers(CurrentAgentJar()));
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor = Refused(std::move(sockets.second), controller);
  auto task = MakeTask();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  EXPECT_TRUE(WaitFor([&] {
    MutexLock lock(mutex_);
    return !verdicts_.empty();
  }));
  task.reset();
  supervisor.join();
  EXPECT_EQ(*ReadFile(Jar(), 4 << 20), CurrentAgentJar());
  MutexLock lock(mutex_);
  ASSERT_EQ(verdicts_.size(), 1u);
  EXPECT_EQ(verdicts_[0].cause(),
            "Agent version 9 or newer is required.; a newer agent.jar was fetched");
  EXPECT_TRUE(verdicts_[0].aged());  // costs nothing of the budget
  EXPECT_EQ(verdicts_[0].launches(), 1u);
}

TEST_F(NewerJar, IsSaidToBeMissingWhenTheControllerOffersTheSame) {
  const std::string digest = Sha256Hex(CurrentAgentJar());
  ASSERT_OK(MakeDirs(tools_.cache_dir));
  const std::string cached = absl::StrCat(tools_.cache_dir, "/", digest, ".jar");
  ASSERT_OK(WriteFileAtomic(cached, CurrentAgentJar(), 0444));
  ASSERT_EQ(::link(cached.c_str(), Jar().c_str()), 0);
  const FakeController controller(Offers(CurrentAgentJar()));
  ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  std::thread supervisor = Refused(std::move(sockets.second), controller);
  auto task = MakeTask();
  ASSERT_OK(task->Attach(std::move(sockets.first)));
  EXPECT_TRUE(
      WaitFor([&] { return Told("the agent.jar that the controller offers is this one"); }));
  task.reset();
  supervisor.join();
  MutexLock lock(mutex_);
  EXPECT_THAT(verdicts_, testing::IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
