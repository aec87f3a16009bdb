// Nomad keeps ten events of a task: of each kind that may come again and again one is told in ten
// minutes, with the number of those that were not. Pure. Not thread-safe.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <utility>

namespace jenkins_agent {

class EventPace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::minutes kInterval{10};

  // Nothing: this one is not told. Else how many of its kind were not since the last that was.
  std::optional<int> Pass(int kind, TimePoint now) {
    Kind& known = kinds_[kind];
    if (known.told.has_value() && now - *known.told < kInterval) {
      ++known.held_back;
      return std::nullopt;
    }
    known.told = now;
    return std::exchange(known.held_back, 0);
  }

 private:
  struct Kind {
    std::optional<TimePoint> told;
    int held_back = 0;
  };
  std::map<int, Kind> kinds_;
};

}  // namespace jenkins_agent
