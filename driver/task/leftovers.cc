#include "driver/task/leftovers.h"

#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/status.h"
#include "driver/supervisor/client.h"
#include "driver/task/record.h"
#include "driver/task/remains.h"

namespace jenkins_agent {
namespace {

struct Found {
  Leftover leftover;
  pb::TaskRecord record;  // when it is valid
};

Leftover::Record Classify(absl::string_view bytes, const std::string& dir, const StatePaths& paths,
                          absl::string_view boot_id, pb::TaskRecord* record) {
  if (!record->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      record->version() == 0) {
    return Leftover::Record::kDamaged;
  }
  if (record->version() > kRecordVersion) return Leftover::Record::kNewer;
  if (record->boot_id() != boot_id) return Leftover::Record::kEarlierBoot;
  const bool ours = DecodeRecord(bytes, paths, boot_id).ok() && record->task_dir() == dir;
  return ours ? Leftover::Record::kValid : Leftover::Record::kDamaged;
}

std::optional<std::chrono::seconds> ExitAge(const std::string& dir) {
  const absl::StatusOr<std::optional<pb::ExitRecord>> exit = ReadExitRecord(dir);
  if (!exit.ok()) return std::chrono::seconds(0);  // RecoverTask shall say that it is damaged
  if (!exit->has_value()) return std::nullopt;
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  const std::chrono::nanoseconds finished((*exit)->finished_at_ns());
  return std::chrono::seconds(now.tv_sec) -
         std::chrono::duration_cast<std::chrono::seconds>(finished);
}

Found Examine(const std::string& dir, const StatePaths& paths, absl::string_view boot_id) {
  Found found;
  const absl::StatusOr<std::string> bytes = ReadFile(absl::StrCat(dir, "/", kHandleFile));
  if (bytes.ok()) {
    found.leftover.record = Classify(*bytes, dir, paths, boot_id, &found.record);
  } else if (!absl::IsNotFound(bytes.status())) {
    found.leftover.record = Leftover::Record::kDamaged;
  }
  found.leftover.supervisor_alive = found.leftover.record == Leftover::Record::kValid
                                        ? SupervisorAlive(found.record)
                                        : !absl::IsUnavailable(ConnectToSupervisor(dir).status());
  found.leftover.marked = ::access(absl::StrCat(dir, "/", kRemovalMark).c_str(), F_OK) == 0;
  found.leftover.exit_age = ExitAge(dir);
  return found;
}

absl::Status Clear(const std::string& dir, const Found& found, LeftoverAction action) {
  if (action == LeftoverAction::kLeave) return absl::OkStatus();
  if (action == LeftoverAction::kEnd) return RemoveRemains(found.record);
  if (found.leftover.record == Leftover::Record::kValid) {
    RETURN_IF_ERROR(RemoveEmptyCgroups(found.record));
  }
  return action == LeftoverAction::kRemove ? RemoveTree(dir) : absl::OkStatus();
}

}  // namespace

LeftoverAction Decide(const Leftover& leftover) {
  switch (leftover.record) {
    case Leftover::Record::kNewer:
      return LeftoverAction::kLeave;  // a newer driver ran here and may come back
    case Leftover::Record::kEarlierBoot:
      return LeftoverAction::kRemove;
    case Leftover::Record::kMissing:
    case Leftover::Record::kDamaged:
      return leftover.supervisor_alive ? LeftoverAction::kLeave : LeftoverAction::kRemove;
    case Leftover::Record::kValid:
      break;
  }
  if (leftover.marked) return LeftoverAction::kEnd;
  if (leftover.supervisor_alive) return LeftoverAction::kLeave;
  const bool wanted = leftover.exit_age.has_value() && *leftover.exit_age < kKeepExit;
  return wanted ? LeftoverAction::kKeep : LeftoverAction::kRemove;
}

void ClearLeftovers(const StatePaths& paths, absl::string_view boot_id) {
  const auto deadline = std::chrono::steady_clock::now() + kClearLimit;
  int left = 0;
  int kept = 0;
  int removed = 0;
  int postponed = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(paths.Tasks(), error)) {
    if (std::chrono::steady_clock::now() > deadline) {
      ++postponed;
      continue;
    }
    const std::string& dir = entry.path().native();
    const Found found = Examine(dir, paths, boot_id);
    const LeftoverAction action = Decide(found.leftover);
    if (const absl::Status cleared = Clear(dir, found, action); !cleared.ok()) {
      Log(LogLevel::kWarn, "left over from an earlier plugin, not removed",
          {{"task_id", found.record.task_id()},
           {"directory", dir},
           {"error", std::string(cleared.message())}});
      ++left;
      continue;
    }
    left += action == LeftoverAction::kLeave ? 1 : 0;
    kept += action == LeftoverAction::kKeep ? 1 : 0;
    removed += action == LeftoverAction::kRemove || action == LeftoverAction::kEnd ? 1 : 0;
  }
  if (left + kept + removed + postponed == 0) return;
  Log(LogLevel::kInfo, "tasks of an earlier plugin",
      {{"left_running", absl::StrCat(left)},
       {"exits_kept", absl::StrCat(kept)},
       {"removed", absl::StrCat(removed)},
       {"not_looked_at", absl::StrCat(postponed)}});
}

}  // namespace jenkins_agent
