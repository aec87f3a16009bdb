#include "driver/base/event_loop.h"

#include <unistd.h>

#include <memory>
#include <thread>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

std::unique_ptr<EventLoop> MakeLoop() { return *EventLoop::Create(); }

TEST(EventLoop, TimersFireInOrderAndCanBeCancelled) {
  const auto loop = MakeLoop();
  std::vector<int> fired;
  const auto now = EventLoop::Clock::now();  // of all, however long this takes
  loop->At(now + milliseconds(2), [&] { fired.push_back(2); });
  loop->At(now + milliseconds(1), [&] { fired.push_back(1); });
  const auto cancelled = loop->At(now + milliseconds(1), [&] { fired.push_back(9); });
  loop->Cancel(cancelled);
  loop->At(now + milliseconds(3), [&] { loop->Quit(); });
  loop->Run();
  EXPECT_THAT(fired, ElementsAre(1, 2));
}

TEST(EventLoop, WatcherMayRemoveItselfAndCloseItsDescriptor) {
  const auto loop = MakeLoop();
  ASSERT_OK_AND_ASSIGN(Pipe pipe, MakePipe());
  int calls = 0;
  ASSERT_OK(loop->Watch(pipe.read.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    loop->Unwatch(pipe.read.get());
    pipe.read.Reset();
    loop->After(milliseconds(1), [&] { loop->Quit(); });
  }));
  ASSERT_EQ(::write(pipe.write.get(), "x", 1), 1);
  loop->Run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, PostFromAnotherThreadRunsOnTheLoop) {
  const auto loop = MakeLoop();
  const std::thread::id loop_thread = std::this_thread::get_id();
  std::thread::id ran_on;
  std::thread other([&] {
    loop->Post([&] {
      ran_on = std::this_thread::get_id();
      loop->Quit();
    });
  });
  loop->Run();
  other.join();
  EXPECT_EQ(ran_on, loop_thread);
}

TEST(EventLoop, WhatIsDroppedAtItsEndMayPostItsFarewell) {
  auto loop = MakeLoop();
  const auto left = std::make_shared<int>();
  const auto object_with_farewell = [&] {
    return std::shared_ptr<void>(nullptr, [loop = loop.get(), left](void*) {
      loop->Post([left] { FAIL() << "the loop has ended"; });
    });
  };
  loop->Post([object = object_with_farewell()] {});
  loop->After(std::chrono::hours(1), [object = object_with_farewell()] {});
  loop.reset();
  EXPECT_EQ(left.use_count(), 1);
}

}  // namespace
}  // namespace jenkins_agent
