// The supervisor's side of entrants (entrant.h): births that are under way, on its event loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/strings/string_view.h"
#include "cgroups/cgroup.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/supervisor/entrant.h"
#include "driver/supervisor/init_process.h"
#include "driver/supervisor/init_protocol.h"

namespace jenkins_agent {

class Entrances {
 public:
  using Then = std::function<void(Entrant)>;
  using Log = std::function<void(absl::string_view)>;

  // `loop`, `cgroup` and `init` outlive this object.
  Entrances(EventLoop* loop, const cgroups::Cgroup& cgroup, const InitProcess& init, Log log)
      : loop_(loop), cgroup_(cgroup), init_(init), log_(std::move(log)) {}
  Entrances(const Entrances&) = delete;
  Entrances& operator=(const Entrances&) = delete;
  ~Entrances();

  // pid 1 has said that this sandbox takes entrants.
  void Open() { open_ = true; }
  // Calls `then` once, at once or from the loop: with none when the sandbox takes none, or when
  // none could be had, which is logged. pid 1 launches then without.
  void Bear(Then then);

 private:
  struct UnderWay {
    Birth birth;
    Then then;
  };

  absl::Status Begin(Then& then);
  void OnMidwifeEnded(uint64_t id);

  EventLoop* const loop_;
  const cgroups::Cgroup& cgroup_;
  const InitProcess& init_;
  const Log log_;
  bool open_ = false;
  std::map<uint64_t, UnderWay> births_;
  uint64_t next_id_ = 1;
};

}  // namespace jenkins_agent
