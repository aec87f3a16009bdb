// For what no descriptor announces: looks again and again until it is so, or the time is up.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace jenkins_agent {

inline bool WaitFor(const std::function<bool()>& predicate,
                    std::chrono::seconds limit = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!predicate()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace jenkins_agent
