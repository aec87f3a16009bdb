// Plugins and supervisors are killed at random moments of many tasks' lives. Every WaitTask is
// answered truthfully, and nothing is left. SOAK_KILLS: how many (a short run without it);
// SOAK_SEED: that of an earlier run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/contract/task_host.h"
#include "tests/support/grpc_matchers.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;

constexpr int kShortRun = 40;
constexpr int kWorkers = 3;
constexpr int kExitCode = 3;

int FromEnvironment(const char* name, int otherwise) {
  const char* text = ::getenv(name);
  int value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

// Counts the plugins of a host, so that a caller whose plugin died can wait for the next.
class Generations {
 public:
  int current() const {
    const MutexLock lock(mutex_);
    return generation_;
  }
  void Next() {
    const MutexLock lock(mutex_);
    ++generation_;
    changed_.NotifyAll();
  }
  bool AwaitAfter(int generation) {
    const auto deadline = std::chrono::steady_clock::now() + TaskHost::kCallLimit;
    const MutexLock lock(mutex_);
    while (generation_ <= generation) {
      if (!changed_.WaitUntil(mutex_, deadline)) return generation_ > generation;
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int generation_ ABSL_GUARDED_BY(mutex_) = 0;
};

class Soak : public ::testing::Test {
 protected:
  // Makes a call; Nomad's reaction to the death of the plugin is to wait for the next one.
  // `died`: that was so, and the call failed.
  grpc::Status Call(const std::function<grpc::Status()>& call, bool* died) {
    const int generation = plugins_.current();
    const grpc::Status status = call();
    *died = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    if (*died && !plugins_.AwaitAfter(generation)) ADD_FAILURE() << "no new plugin";
    return status;
  }

  void LiveATask(const std::string& id, std::mt19937* random) {
    const bool stop = (*random)() % 2 == 0;
    const std::string script =
        stop ? "exec sleep 600"
             : absl::StrCat("sleep 0.", 10 + (*random)() % 90, "; exit ", kExitCode);
    nomad::TaskHandle handle;
    bool died = true;
    grpc::Status status;
    while (died) {
      status = Call([&] { return host_.Start(host_.Config(id, script), &handle); }, &died);
    }
    if (!status.ok()) {  // its supervisor was killed
      EXPECT_NE(status.error_message(), "");
      ++failed_starts_;
      return;
    }
    if (stop) Call([&] { return host_.Stop(id, "SIGTERM", 2000); }, &died);
    nomad::WaitTaskResponse end;
    const auto wait = [&] { return host_.Wait(id, &end); };
    status = died ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "") : Call(wait, &died);
    while (died) {
      status = Call([&] { return host_.Recover(handle); }, &died);
      if (died) continue;
      if (status.ok() && stop) Call([&] { return host_.Stop(id, "SIGTERM", 2000); }, &died);
      if (status.ok() && !died) status = Call(wait, &died);
    }
    ASSERT_THAT(status, Succeeded()) << id;
    ExpectTruth(end, stop);
    ++answered_;
    Call([&] { return host_.Destroy(id); }, &died);
    if (!died) return;
    const MutexLock lock(mutex_);
    interrupted_.push_back(id);
  }

  // Its own exit, the stop, or the death of its supervisor with a reason.
  void ExpectTruth(const nomad::WaitTaskResponse& end, bool stopped) {
    const int code = end.result().exit_code();
    if (!end.err().empty()) {
      EXPECT_NE(code, 0);
      ++lost_;
    } else if (stopped) {
      EXPECT_TRUE(code == 143 || code == 137) << code;
    } else {
      EXPECT_EQ(code, kExitCode);
    }
  }

  void KillSomebody(std::mt19937* random) {
    std::this_thread::sleep_for(milliseconds((*random)() % 200));
    if ((*random)() % 2 == 0) {
      ASSERT_OK(host_.Crash());
      ASSERT_OK(host_.Launch());
      plugins_.Next();
      return;
    }
    const std::vector<int> supervisors = host_.Supervisors();
    if (!supervisors.empty()) ::kill(supervisors[(*random)() % supervisors.size()], SIGKILL);
  }

  TaskHost host_{DRIVER_FILE};
  Generations plugins_;
  std::atomic<int> answered_ = 0;
  std::atomic<int> failed_starts_ = 0;
  std::atomic<int> lost_ = 0;
  Mutex mutex_;
  std::vector<std::string> interrupted_ ABSL_GUARDED_BY(mutex_);  // their DestroyTask died
};

TEST_F(Soak, NothingIsLostAndNothingIsLeft) {
  REQUIRES_ROOT();
  const int kills = FromEnvironment("SOAK_KILLS", kShortRun);
  const int seed = FromEnvironment("SOAK_SEED", static_cast<int>(std::random_device()() >> 1));
  ASSERT_OK(host_.Launch());
  std::atomic<bool> over = false;
  std::vector<std::thread> workers;
  for (int worker = 0; worker < kWorkers; ++worker) {
    workers.emplace_back([&, worker] {
      std::mt19937 random(seed + worker + 1);
      for (int task = 0; !over; ++task) LiveATask(absl::StrCat(worker, "/agent/", task), &random);
    });
  }
  std::mt19937 random(seed);
  for (int kill = 0; kill < kills && !HasFatalFailure(); ++kill) KillSomebody(&random);
  over = true;
  for (std::thread& worker : workers) worker.join();
  std::cout << "SOAK_SEED=" << seed << ": " << kills << " kills, " << answered_
            << " tasks answered, of which " << lost_ << " lost their supervisor, " << failed_starts_
            << " failed starts\n";
  EXPECT_GT(answered_, 0);
  // A DestroyTask that died with its plugin is not repeated by Nomad. The next plugin finishes it
  // if it had begun; if not, the exit stays for the time of task/leftovers.h, or until it is asked
  // for.
  ASSERT_OK(host_.Quit());
  ASSERT_OK(host_.Launch());
  {
    const MutexLock lock(mutex_);
    for (const std::string& id : interrupted_) ASSERT_THAT(host_.Destroy(id), Succeeded()) << id;
  }
  EXPECT_THAT(host_.Leftovers(), IsEmpty());
  EXPECT_OK(host_.Quit());
}

}  // namespace
}  // namespace jenkins_agent
