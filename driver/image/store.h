// The images of this node, on disk. Anything that has its final name is complete, verified and
// synced: there are no marks for the unfinished.
//
//   <dir>/                        0700 root, on one file system with trusted.* attributes
//     VERSION                     "1"
//     lock                        flock: one change at a time, for milliseconds
//     layers/<key>/               a layer's directory, never written again. <key>: the hex of its
//                                 diff_id, or "c-" and that of its chain when the content depends
//                                 on the layers below (LayerDir::InventedDirs)
//     images/<manifest hex>.json  config and layers; its time of change is the time of the last use
//     refs/<sha256 of name>.json  what a name meant when it was last looked up
//     leases/<sha256 of task>.json, pins/<sha256 of name>.json
//     tmp/<random>/               what a pull is making; flock held by the pull
//     trash/<random>/             what nobody refers to any more, being removed
//
// A pull publishes in the order layers, image, ref; a removal goes the other way round. Whatever
// dies in between leaves objects that nothing refers to, and Sweep finds them.
// Any number of processes and threads may use one store and one object.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"
#include "driver/image/digest.h"

namespace jenkins_agent {

inline constexpr char kStoreRefs[] = "refs";
inline constexpr char kStorePins[] = "pins";

struct StoredLayer {
  std::string key;
  int64_t bytes = 0;  // unpacked, about what it takes on disk
  Digest tree = {};   // of its directory (tree_tar.h), to find damage; empty: not noted
};

struct StoredImage {
  Digest manifest;
  std::string config;               // as its builder wrote it: ParseImageConfig
  std::vector<StoredLayer> layers;  // lowest first
  int64_t pulled_at = 0;            // Unix seconds
  int64_t last_used = 0;            // Unix seconds; not written by Publish
};

struct StoredRef {
  std::string name;  // Reference::ToString
  Digest manifest;
  int64_t resolved_at = 0;  // Unix seconds
};

struct Lease {
  std::string task;  // Nomad's task id
  Digest manifest;
  std::string task_dir = "";  // of the plugin that took it: without this directory the task is gone
};

struct DiskSpace {
  int64_t total = 0;  // bytes
  int64_t free = 0;   // for root's subjects
};

// A pull's own directory, removed with everything in it by the destructor.
class Staging {
 public:
  Staging(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  Staging(Staging&&) = default;
  Staging& operator=(Staging&&) = delete;
  ~Staging();

  // A new empty directory for the layer `key`, under that name.
  absl::StatusOr<Fd> MakeLayer(const std::string& key) const;
  // Waits until all that was written is on the disk: seconds.
  absl::Status Sync() const;
  const std::string& path() const { return path_; }
  int fd() const { return lock_.get(); }

 private:
  std::string path_;
  Fd lock_;
};

std::string LayerKey(const Digest& diff_id);
// The chain of layers up to and with one: image-spec's ChainID.
Digest ChainId(const std::vector<Digest>& diff_ids);
std::string ChainKey(const Digest& chain);

// Whether a task has a lease in the store in `dir`, which is not opened for it.
bool HasLease(const std::string& dir, const std::string& task);

class Store {
 public:
  // Makes what is missing. FailedPrecondition: a store of another version.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& dir);
  // For who only looks: makes no store. NotFound: there is none.
  static absl::StatusOr<std::unique_ptr<Store>> OpenExisting(const std::string& dir);

  // Records that cannot be read are left out, as if they were not there.
  std::vector<StoredImage> Images() const;
  std::vector<StoredRef> Refs() const;
  std::vector<Lease> Leases() const;
  std::vector<std::string> Pins() const;  // names
  std::optional<StoredImage> FindImage(const Digest& manifest) const;
  std::optional<StoredRef> FindRef(const std::string& name) const;
  bool HasLayer(const std::string& key) const;
  absl::StatusOr<Fd> OpenLayer(const std::string& key) const;
  std::string LayerPath(const std::string& key) const;
  const std::string& dir() const { return path_; }
  // Of the file system that it is on.
  absl::StatusOr<DiskSpace> Space() const;

  absl::StatusOr<Staging> Stage() const;
  // Moves the layers that `staging` holds, which the caller has synced, then writes image and ref.
  // Aborted: a layer that was here when the pull began is gone; pull again.
  absl::Status Publish(const Staging& staging, const StoredImage& image,
                       const StoredRef& ref) const;
  // Another name, or a newer look-up, of an image that is here. NotFound when it is not.
  absl::Status SetRef(const StoredRef& ref) const;
  // NotFound: the image is not here (any more).
  absl::Status TakeLease(const Lease& lease) const;
  // Of a task that has none: OK.
  absl::Status DropLease(const std::string& task) const;
  absl::Status Pin(const std::string& name) const;
  absl::Status Unpin(const std::string& name) const;  // NotFound when it is not pinned
  // The image, the names that mean it, and the layers that no other image has. FailedPrecondition:
  // a task runs on it. Returns what its layers had in bytes.
  absl::StatusOr<int64_t> Remove(const Digest& manifest) const;
  // A layer that is damaged: gone at once, and so are the images that have it, until they are
  // pulled again. FailedPrecondition: a task runs on one of them.
  absl::Status RemoveLayer(const std::string& key) const;
  // Only the name; the image stays until it is collected.
  absl::Status RemoveRef(const std::string& name) const;

  // Removes what dead pulls and half-done removals left. Never what a running pull is making.
  absl::Status Sweep() const;

 private:
  Store(std::string path, Fd dir) : path_(std::move(path)), dir_(std::move(dir)) {}
  absl::StatusOr<Fd> Lock() const;
  absl::Status WriteRecord(const char* folder, const std::string& name,
                           const std::string& text) const;
  absl::Status WriteRef(const StoredRef& ref) const;
  absl::Status CheckIsHere(const Digest& manifest) const;  // NotFound
  absl::Status Discard(const std::string& folder, const std::string& name) const;
  absl::Status DiscardUnreferenced() const;
  absl::Status DiscardDeadPulls() const;
  absl::Status RemoveHalfRecords() const;
  absl::Status EmptyTrash() const;
  absl::Status SyncFolder(const std::string& folder) const;

  const std::string path_;
  const Fd dir_;
};

}  // namespace jenkins_agent
