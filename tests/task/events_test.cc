#include "driver/task/events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "driver/task/event_pace.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;

TaskEvent Event(std::string message) {
  TaskEvent event;
  event.message = std::move(message);
  return event;
}

TEST(EventBus, KeepsEventsForTheFirstSubscriber) {
  EventBus bus;
  bus.Publish(Event("early"));
  std::vector<std::string> seen;
  const uint64_t id = bus.Subscribe([&](const TaskEvent& event) { seen.push_back(event.message); });
  bus.Publish(Event("late"));
  bus.Unsubscribe(id);
  bus.Publish(Event("kept"));
  EXPECT_THAT(seen, ElementsAre("early", "late"));
  bus.Subscribe([&](const TaskEvent& event) { seen.push_back(event.message); });
  EXPECT_THAT(seen, ElementsAre("early", "late", "kept"));
}

TEST(EventBus, WhatIsPublishedWhileOthersWaitDoesNotOvertake) {
  EventBus bus;
  bus.Publish(Event("first"));
  bus.Publish(Event("second"));
  std::vector<std::string> seen;
  bus.Subscribe([&](const TaskEvent& event) {
    if (seen.empty()) bus.Publish(Event("third"));  // as another thread may at this moment
    seen.push_back(event.message);
  });
  EXPECT_THAT(seen, ElementsAre("first", "second", "third"));
}

TEST(EventBus, WhatWaitsIsBoundedAndTheOldestGo) {
  EventBus bus;
  for (size_t i = 0; i < EventBus::kMaxKept + 2; ++i) bus.Publish(Event(std::to_string(i)));
  std::vector<std::string> seen;
  bus.Subscribe([&](const TaskEvent& event) { seen.push_back(event.message); });
  ASSERT_EQ(seen.size(), EventBus::kMaxKept);
  EXPECT_EQ(seen.front(), "2");
}

TEST(EventPace, OneOfAKindIsToldInTenMinutesAndTheOthersAreCounted) {
  EventPace pace;
  EventPace::TimePoint now;
  EXPECT_EQ(pace.Pass(1, now), 0);
  EXPECT_EQ(pace.Pass(2, now), 0);  // of another kind
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(pace.Pass(1, now += std::chrono::seconds(90)), std::nullopt);
  EXPECT_EQ(pace.Pass(1, now + std::chrono::seconds(150)), 5);
  EXPECT_EQ(pace.Pass(1, now + std::chrono::seconds(200)), std::nullopt);
  EXPECT_EQ(pace.Pass(2, now + std::chrono::seconds(200)), 0);
}

}  // namespace
}  // namespace jenkins_agent
