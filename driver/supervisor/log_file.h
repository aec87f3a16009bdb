// One stream of a task in rotated files, <base>.0, <base>.1, ..., as Nomad's log helper writes
// them: `nomad alloc logs` with -f and -tail, and the web UI, look for these names
// (client/fs_endpoint.go, logIndexes) and need no helper to have written them.
//
// As the helper does (client/logmon/logging/rotator.go): goes on with the highest number that is
// there, rotates when the next byte would not fit, keeps short lines in one file, removes the
// oldest. Unlike a FIFO it never makes the payload wait: what cannot be written (a full disk, a
// directory that is gone) is dropped, and one line in the log says how much of it and why as soon
// as there is something to write and that works.
//
// The directory is in reach of the jobs of the allocation, who may plant what they like: no symlink
// in or below it is followed, and a name that is no plain file of its own is passed over.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

struct LogFileSet {
  std::string root;       // the host's own: symlinks in it are the operator's
  std::string directory;  // below root, must exist
  std::string base_name;
  uint32_t max_files = 1;
  uint64_t max_file_bytes = 1;
};

class RotatedFile {
 public:
  static constexpr mode_t kMode = 0644;  // the helper's; the payload reads its own log
  // Only shorter lines are kept from being split (lineScanLimit of the helper).
  static constexpr size_t kMaxWholeLine = 32 << 10;
  static constexpr uint32_t kMaxIndex = 1'000'000'000;  // higher ones are not ours
  static constexpr size_t kMaxEntries = 1 << 16;        // looked at in one directory
  static constexpr uint32_t kMaxPassedOver = 16;        // names in one attempt

  explicit RotatedFile(LogFileSet files) : files_(std::move(files)) {}

  // Makes the first file, so that a task without output has an empty log. An error: there is no
  // such directory. All else shows in the log when it works again.
  absl::Status Open();
  void Append(absl::string_view bytes);
  // Nothing more comes: the last chance to say what was dropped.
  void Finish() { WriteMarker().IgnoreError(); }
  uint64_t dropped_total() const { return dropped_total_; }  // bytes

 private:
  absl::StatusOr<Fd> OpenDirectory() const;
  absl::Status OpenNewest();
  absl::Status OpenNext();
  absl::Status OpenFrom(const Fd& directory, uint32_t first, uint64_t size_limit);
  // The numbers in use, ascending.
  absl::StatusOr<std::vector<uint32_t>> Indexes(const Fd& directory) const;
  void RemoveOldest(const Fd& directory) const;
  absl::StatusOr<uint64_t> Room();
  absl::StatusOr<size_t> WriteSome(absl::string_view bytes);
  absl::Status WriteMarker();
  void Drop(size_t bytes, const absl::Status& why);

  std::string Name(uint32_t index) const;

  const LogFileSet files_;
  Fd file_;
  uint32_t index_ = 0;
  bool at_line_start_ = true;
  uint64_t dropped_bytes_ = 0;  // that no marker tells yet
  uint64_t dropped_total_ = 0;
  std::string dropped_because_;
  std::string marker_rest_;  // of a marker that is partly written
};

// How many of `bytes` belong into a file with `room` left of `capacity`; 0: start the next file.
size_t PartForThisFile(absl::string_view bytes, uint64_t room, uint64_t capacity,
                       bool at_line_start);

}  // namespace jenkins_agent
