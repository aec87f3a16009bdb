#include "driver/supervisor/entrances.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {

Entrances::~Entrances() {
  for (const auto& [id, under_way] : births_) loop_->Unwatch(under_way.birth.midwife.get());
}

void Entrances::Bear(Then then) {
  if (!open_) return then(Entrant());
  const absl::Status begun = Begin(then);
  if (begun.ok()) return;
  log_(absl::StrCat("no entrant: ", begun.message()));
  then(Entrant());
}

absl::Status Entrances::Begin(Then& then) {
  ASSIGN_OR_RETURN(Birth birth, BearEntrant(cgroup_, init_.pidfd.get()));
  const uint64_t id = next_id_++;
  RETURN_IF_ERROR(
      loop_->Watch(birth.midwife.get(), EPOLLIN, [this, id](uint32_t) { OnMidwifeEnded(id); }));
  UnderWay& under_way = births_[id];
  under_way.birth = std::move(birth);
  under_way.then = std::move(then);
  return absl::OkStatus();
}

void Entrances::OnMidwifeEnded(uint64_t id) {
  const auto it = births_.find(id);
  UnderWay ended = std::move(it->second);
  births_.erase(it);
  const int midwife = ended.birth.midwife.get();
  loop_->Unwatch(midwife);
  siginfo_t info = {};
  ::waitid(P_PIDFD, static_cast<id_t>(midwife), &info, WEXITED | WNOHANG);
  absl::StatusOr<Entrant> entrant = ReadEntrant(std::move(ended.birth.channel));
  if (!entrant.ok()) log_(absl::StrCat("no entrant: ", entrant.status().message()));
  ended.then(entrant.ok() ? *std::move(entrant) : Entrant());
}

}  // namespace jenkins_agent
