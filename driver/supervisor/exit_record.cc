#include "driver/supervisor/exit_record.h"

#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {
constexpr size_t kMaxExitRecordBytes = 64 << 10;
}  // namespace

absl::Status WriteExitRecord(int task_dir_fd, const pb::ExitRecord& record) {
  return WriteFileAtomicAt(task_dir_fd, kExitFile, record.SerializeAsString());
}

absl::StatusOr<std::optional<pb::ExitRecord>> ReadExitRecord(const std::string& task_dir) {
  const std::string path = absl::StrCat(task_dir, "/", kExitFile);
  const absl::StatusOr<std::string> bytes = ReadFile(path, kMaxExitRecordBytes);
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  RETURN_IF_ERROR(bytes.status());
  pb::ExitRecord record;
  // An empty file parses too and would be a success.
  if (!record.ParseFromString(*bytes) || record.version() == 0) {
    return absl::DataLossError(absl::StrCat(path, ": not an exit record"));
  }
  if (record.version() > kSpecVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": version ", record.version(), ", this driver knows ", kSpecVersion));
  }
  return record;
}

}  // namespace jenkins_agent
