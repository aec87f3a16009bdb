// Writes one layer's entries into a directory that overlayfs takes as a lower one.
//
// Everything that an entry names is looked up as if the directory were "/" (openat2's
// RESOLVE_IN_ROOT): no path, link or ".." of a layer leads out of it. Whiteouts become what
// overlayfs reads: a character device 0:0 hides a name of the layers below, the attribute
// trusted.overlay.opaque all names of a directory (kernel: Documentation/filesystems/overlayfs).
// Needs CAP_CHOWN, DAC_OVERRIDE, FOWNER, MKNOD, SETFCAP and, for trusted.*, SYS_ADMIN.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"
#include "driver/image/content_sum.h"
#include "driver/image/tar.h"

namespace jenkins_agent {

// overlayfs: nothing of the layers below is seen in a directory that has it, with the value "y".
inline constexpr char kOpaqueXattr[] = "trusted.overlay.opaque";

inline constexpr int64_t kMaxLayerEntries = 2'000'000;
inline constexpr size_t kMaxRememberedBytes = 24 << 20;  // names of directories and whiteouts
inline constexpr int kMaxLinksFollowed = 40;             // as in the kernel

// One thread. The directory must be out of reach of others and empty.
class LayerDir {
 public:
  // `root` stays the caller's.
  explicit LayerDir(int root) : root_(root) {}

  // `tar` stands behind the entry's header. Errors name the entry; InvalidArgument, OutOfRange and
  // Unimplemented: the layer is to blame, else the disk.
  absl::Status Add(const TarEntry& entry, TarReader& tar);
  // Whiteouts and the times of directories, which later entries would change.
  absl::Status Finish();

  int64_t entries() const { return entries_; }
  // Directories, but the root, that the layer's entries lie in without being entries themselves.
  // overlayfs would show their attributes instead of those of the same directory in a layer below:
  // TakeAttributes. Parents before their children.
  std::vector<std::string> InventedDirs() const;
  // Of all files, 16 bytes each; at the end.
  FileSums TakeSums();

 private:
  struct Place {
    int parent = -1;   // held by parent_
    std::string dir;   // of the parent, from the root, without links; "" is the root
    std::string name;  // in the parent
  };
  struct DirTimes {
    int64_t seconds = 0;
    int64_t nanoseconds = 0;
  };

  absl::Status AddChecked(const TarEntry& entry, TarReader& tar);
  absl::Status AddWhiteout(const Place& place, absl::string_view marker);
  absl::Status AddDirectory(const TarEntry& entry, const Place& place);
  absl::Status AddFile(const TarEntry& entry, const Place& place, TarReader& tar);
  absl::Status AddHardLink(const TarEntry& entry, const Place& place);
  absl::Status AddSymlink(const TarEntry& entry, const Place& place);
  absl::Status AddNode(const TarEntry& entry, const Place& place);
  absl::Status SetRootAttributes(const TarEntry& entry);

  // The directory that `parts` name, made where it is missing; links are followed within the root.
  absl::StatusOr<std::string> ResolveDir(std::vector<std::string> parts);
  absl::StatusOr<Fd> OpenDir(const std::string& dir) const;
  absl::Status MakeInvented(const std::string& dir);
  absl::StatusOr<Place> Find(const std::vector<std::string>& parts);
  absl::Status Remember(size_t bytes);
  void Forget(const std::string& dir);
  absl::Status RemoveExisting(const Place& place);

  const int root_;
  int64_t entries_ = 0;
  size_t remembered_bytes_ = 0;
  // The parent of the last entry, as written and as found: entries come directory by directory.
  std::string parent_parts_;
  std::string parent_dir_;
  Fd parent_;
  std::map<std::string, DirTimes> dir_times_;  // by path from the root
  std::set<std::string> invented_;
  std::set<std::string> opaque_;
  std::set<std::string> whiteouts_;
  ContentSum content_;
  FileSums sums_;  // in the order of writing; of an inode that was used again the last one counts
};

// Gives each invented directory of a layer mode, owner, attributes and times of the same directory
// in the topmost of `lowers` (topmost first) that has it. `layer` and `lowers` stay the caller's.
absl::Status TakeAttributes(int layer, const std::vector<std::string>& invented,
                            const std::vector<int>& lowers);

// Whether a layer may set the extended attribute; others are left out.
bool MayHaveXattr(absl::string_view name);

// The parts of an entry's path: no "", "." or ".."; empty for the root.
std::vector<std::string> CleanPath(absl::string_view path);

}  // namespace jenkins_agent
