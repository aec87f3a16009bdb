#include "driver/image/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/json.h"
#include "driver/image/manifest.h"

namespace jenkins_agent {
namespace {

constexpr char kVersion[] = "1\n";
constexpr char kVersionFile[] = "VERSION";
constexpr char kLockFile[] = "lock";
constexpr char kLayers[] = "layers";
constexpr char kImages[] = "images";
constexpr char kLeases[] = "leases";
constexpr char kTmp[] = "tmp";
constexpr char kTrash[] = "trash";
constexpr char kSuffix[] = ".json";
constexpr char kHalfSuffix[] = ".json.tmp";  // of WriteFileAtomicAt, until the rename
// The digest of a layer's tree. Older records have another one, as "tree", which nobody can check.
constexpr char kTree[] = "tree_digest";
constexpr size_t kMaxRecordBytes = 2 * kMaxConfigBytes;  // the config, escaped
constexpr size_t kMaxRecords = 100'000;                  // of one folder

// Names in a folder, without those that begin with a dot. Of a folder that cannot be read: none.
std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  DIR* const stream = ::opendir(folder.c_str());
  if (stream == nullptr) return names;
  const absl::Cleanup close = [stream] { ::closedir(stream); };
  while (const dirent* entry = ::readdir(stream)) {
    if (entry->d_name[0] != '.' && names.size() < kMaxRecords) names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string RandomName() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x", random(), random(), random());
}

std::string RecordName(absl::string_view name) {
  return absl::StrCat(Digest::Of(name).hex(), kSuffix);
}

bool IsLayerKey(absl::string_view name) {
  absl::ConsumePrefix(&name, "c-");
  return Digest::Parse(absl::StrCat("sha256:", name)).ok();
}

// Takes the lock of a directory that a pull or a removal works on; empty when somebody has it.
Fd TryLock(const std::string& path) {
  absl::StatusOr<Fd> fd = OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd.ok() || ::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) return Fd();
  return *std::move(fd);
}

// What is made in `dir` is to lie apart on ext4, each directory with all below it in another group
// of inodes: where much was just removed, ext4 looks at every inode that it must not use again yet
// (fs/ext4/ialloc.c, recently_deleted), which takes longer than a pull. Other file systems have no
// such attribute and need none; a confined worker may not set it and finds it set.
void SpreadDirectories(const std::string& dir) {
  const absl::StatusOr<Fd> fd = OpenFile(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  int flags = 0;
  if (!fd.ok() || ::ioctl(fd->get(), FS_IOC_GETFLAGS, &flags) != 0) return;
  if ((flags & FS_TOPDIR_FL) != 0) return;
  flags |= FS_TOPDIR_FL;
  (void)::ioctl(fd->get(), FS_IOC_SETFLAGS, &flags);
}

absl::StatusOr<Digest> ReadDigest(const Json& object, const char* key) {
  std::string text;
  RETURN_IF_ERROR(ReadMember(object, key, text));
  return Digest::Parse(text);
}

std::string ImageText(const StoredImage& image) {
  Json layers = Json::array();
  for (const StoredLayer& layer : image.layers) {
    layers.push_back({{"key", layer.key}, {"bytes", layer.bytes}});
    if (!layer.tree.empty()) layers.back()[kTree] = layer.tree.ToString();
  }
  const Json record = {{"manifest", image.manifest.ToString()},
                       {"config", image.config},
                       {"layers", layers},
                       {"pulled_at", image.pulled_at}};
  return record.dump();
}

absl::StatusOr<StoredImage> ReadImage(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json record, ParseJsonObject(text));
  StoredImage image;
  ASSIGN_OR_RETURN(image.manifest, ReadDigest(record, "manifest"));
  RETURN_IF_ERROR(ReadMember(record, "config", image.config));
  RETURN_IF_ERROR(ReadMember(record, "pulled_at", image.pulled_at));
  const auto layers = record.find("layers");
  if (layers == record.end() || !layers->is_array()) {
    return absl::InvalidArgumentError("'layers' is missing");
  }
  for (const Json& element : *layers) {
    if (!element.is_object()) return absl::InvalidArgumentError("a layer is no object");
    StoredLayer& layer = image.layers.emplace_back();
    RETURN_IF_ERROR(ReadMember(element, "key", layer.key));
    RETURN_IF_ERROR(ReadMember(element, "bytes", layer.bytes));
    if (element.contains(kTree)) {
      ASSIGN_OR_RETURN(layer.tree, ReadDigest(element, kTree));
    }
    if (!IsLayerKey(layer.key)) return absl::InvalidArgumentError("a layer's key is none");
  }
  return image;
}

absl::StatusOr<StoredRef> ReadRef(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json record, ParseJsonObject(text));
  StoredRef ref;
  RETURN_IF_ERROR(ReadMember(record, "name", ref.name));
  ASSIGN_OR_RETURN(ref.manifest, ReadDigest(record, "manifest"));
  RETURN_IF_ERROR(ReadMember(record, "resolved_at", ref.resolved_at));
  return ref;
}

absl::StatusOr<Lease> ReadLease(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json record, ParseJsonObject(text));
  Lease lease;
  RETURN_IF_ERROR(ReadMember(record, "task", lease.task));
  ASSIGN_OR_RETURN(lease.manifest, ReadDigest(record, "manifest"));
  RETURN_IF_ERROR(ReadMember(record, "task_dir", lease.task_dir));
  return lease;
}

absl::StatusOr<std::string> ReadPin(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json record, ParseJsonObject(text));
  std::string name;
  RETURN_IF_ERROR(ReadMember(record, "name", name));
  return name;
}

// Every record of a folder that `read` understands and whose file has the name that belongs to it.
template <typename Record>
std::vector<Record> ReadRecords(const std::string& folder,
                                absl::StatusOr<Record> (*read)(absl::string_view)) {
  std::vector<Record> records;
  for (const std::string& name : Names(folder)) {
    if (!absl::EndsWith(name, kSuffix)) continue;
    const absl::StatusOr<std::string> text = ReadFile(folder + "/" + name, kMaxRecordBytes);
    if (!text.ok()) continue;
    absl::StatusOr<Record> record = read(*text);
    if (record.ok()) records.push_back(*std::move(record));
  }
  return records;
}

absl::StatusOr<Fd> LockStore(int dir) {
  ASSIGN_OR_RETURN(Fd lock, OpenAt(dir, kLockFile, O_RDWR | O_CREAT, 0600));
  while (::flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus("lock the image store");
  }
  return lock;
}

// Writes it into a new store.
absl::Status CheckVersion(int dir) {
  ASSIGN_OR_RETURN(const Fd lock, LockStore(dir));
  const absl::StatusOr<std::string> version = ReadFileAt(dir, kVersionFile, 64);
  if (absl::IsNotFound(version.status())) return WriteFileAtomicAt(dir, kVersionFile, kVersion);
  RETURN_IF_ERROR(version.status());
  if (*version == kVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "is of version '", absl::CHexEscape(absl::StripTrailingAsciiWhitespace(*version)),
      "', this program knows 1: use the driver that made it, or another directory"));
}

}  // namespace

Staging::~Staging() {
  // What cannot be removed now is the next Sweep's: the lock goes with this object.
  if (lock_.valid()) (void)RemoveTree(path_);
}

absl::StatusOr<Fd> Staging::MakeLayer(const std::string& key) const {
  if (::mkdirat(lock_.get(), key.c_str(), 0755) != 0) return ErrnoStatus("mkdir");
  return OpenAt(lock_.get(), key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

absl::Status Staging::Sync() const {
  return ::syncfs(lock_.get()) == 0 ? absl::OkStatus() : ErrnoStatus("sync the image store");
}

std::string LayerKey(const Digest& diff_id) { return diff_id.hex(); }

Digest ChainId(const std::vector<Digest>& diff_ids) {
  Digest chain;
  for (const Digest& diff_id : diff_ids) {
    chain = chain.empty() ? diff_id
                          : Digest::Of(absl::StrCat(chain.ToString(), " ", diff_id.ToString()));
  }
  return chain;
}

std::string ChainKey(const Digest& chain) { return absl::StrCat("c-", chain.hex()); }

bool HasLease(const std::string& dir, const std::string& task) {
  const std::string path = absl::StrCat(dir, "/", kLeases, "/", RecordName(task));
  return ::access(path.c_str(), F_OK) == 0;
}

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& dir) {
  const std::string context = absl::StrCat("image store ", dir);
  RETURN_IF_ERROR(MakeDirs(dir, 0700), context);
  ASSIGN_OR_RETURN(Fd fd, OpenFile(dir, O_RDONLY | O_DIRECTORY), context);
  RETURN_IF_ERROR(CheckVersion(fd.get()), context);
  for (const char* folder : {kLayers, kImages, kStoreRefs, kLeases, kStorePins, kTmp, kTrash}) {
    RETURN_IF_ERROR(MakeDirs(absl::StrCat(dir, "/", folder), 0700), context);
  }
  SpreadDirectories(absl::StrCat(dir, "/", kTmp));
  return std::unique_ptr<Store>(new Store(dir, std::move(fd)));
}

absl::StatusOr<std::unique_ptr<Store>> Store::OpenExisting(const std::string& dir) {
  // What else keeps from a store, Open says.
  if (::access(absl::StrCat(dir, "/", kVersionFile).c_str(), F_OK) != 0 && errno == ENOENT) {
    return absl::NotFoundError(
        absl::StrCat("there are no images: ", dir, " is no image store, none was pulled there"));
  }
  return Open(dir);
}

std::vector<StoredImage> Store::Images() const {
  std::vector<StoredImage> images = ReadRecords<StoredImage>(path_ + "/" + kImages, &ReadImage);
  for (StoredImage& image : images) {
    struct stat info = {};
    const std::string name = absl::StrCat(kImages, "/", image.manifest.hex(), kSuffix);
    if (::fstatat(dir_.get(), name.c_str(), &info, 0) == 0) image.last_used = info.st_mtim.tv_sec;
  }
  return images;
}

std::vector<StoredRef> Store::Refs() const {
  return ReadRecords<StoredRef>(path_ + "/" + kStoreRefs, &ReadRef);
}

std::vector<Lease> Store::Leases() const {
  return ReadRecords<Lease>(path_ + "/" + kLeases, &ReadLease);
}

std::vector<std::string> Store::Pins() const {
  return ReadRecords<std::string>(path_ + "/" + kStorePins, &ReadPin);
}

std::optional<StoredImage> Store::FindImage(const Digest& manifest) const {
  const std::string name = absl::StrCat(kImages, "/", manifest.hex(), kSuffix);
  const absl::StatusOr<std::string> text = ReadFileAt(dir_.get(), name, kMaxRecordBytes);
  if (!text.ok()) return std::nullopt;
  absl::StatusOr<StoredImage> image = ReadImage(*text);
  if (!image.ok()) return std::nullopt;
  for (const StoredLayer& layer : image->layers) {
    if (!HasLayer(layer.key)) return std::nullopt;
  }
  return *std::move(image);
}

std::optional<StoredRef> Store::FindRef(const std::string& name) const {
  const absl::StatusOr<std::string> text =
      ReadFileAt(dir_.get(), absl::StrCat(kStoreRefs, "/", RecordName(name)), kMaxRecordBytes);
  if (!text.ok()) return std::nullopt;
  absl::StatusOr<StoredRef> ref = ReadRef(*text);
  if (!ref.ok()) return std::nullopt;
  return *std::move(ref);
}

std::string Store::LayerPath(const std::string& key) const {
  return absl::StrCat(path_, "/", kLayers, "/", key);
}

bool Store::HasLayer(const std::string& key) const {
  return ::access(LayerPath(key).c_str(), F_OK) == 0;
}

absl::StatusOr<Fd> Store::OpenLayer(const std::string& key) const {
  return OpenAt(dir_.get(), absl::StrCat(kLayers, "/", key), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

absl::StatusOr<DiskSpace> Store::Space() const {
  struct statvfs info = {};
  if (::fstatvfs(dir_.get(), &info) != 0) return ErrnoStatus(absl::StrCat("statvfs ", path_));
  const auto unit = static_cast<int64_t>(info.f_frsize);
  return DiskSpace{.total = static_cast<int64_t>(info.f_blocks) * unit,
                   .free = static_cast<int64_t>(info.f_bavail) * unit};
}

absl::StatusOr<Fd> Store::Lock() const { return LockStore(dir_.get()); }

absl::Status Store::SyncFolder(const std::string& folder) const {
  ASSIGN_OR_RETURN(const Fd fd, OpenAt(dir_.get(), folder, O_RDONLY | O_DIRECTORY));
  return ::fsync(fd.get()) == 0 ? absl::OkStatus() : ErrnoStatus(absl::StrCat("fsync ", folder));
}

absl::Status Store::WriteRecord(const char* folder, const std::string& name,
                                const std::string& text) const {
  ASSIGN_OR_RETURN(const Fd fd, OpenAt(dir_.get(), folder, O_RDONLY | O_DIRECTORY));
  return WriteFileAtomicAt(fd.get(), name, text);
}

absl::StatusOr<Staging> Store::Stage() const {
  // A sweep looks for locks under the store's: there is no moment in which this one is missing.
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  const std::string path = absl::StrCat(path_, "/", kTmp, "/", RandomName());
  if (::mkdir(path.c_str(), 0700) != 0) return ErrnoStatus(absl::StrCat("mkdir ", path));
  Fd own = TryLock(path);
  if (!own.valid()) return absl::InternalError(absl::StrCat("cannot lock ", path));
  return Staging(path, std::move(own));
}

absl::Status Store::Publish(const Staging& staging, const StoredImage& image,
                            const StoredRef& ref) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  for (const StoredLayer& layer : image.layers) {
    const std::string to = absl::StrCat(kLayers, "/", layer.key);
    if (::renameat2(staging.fd(), layer.key.c_str(), dir_.get(), to.c_str(), RENAME_NOREPLACE) ==
        0) {
      FaultPoint("image.publish.layer_moved");
      continue;
    }
    // Published by another pull, or here already when this one began.
    if (errno != EEXIST && errno != ENOENT) return ErrnoStatus(absl::StrCat("rename ", layer.key));
    if (!HasLayer(layer.key)) {
      return absl::AbortedError(absl::StrCat("layer ", layer.key, " was removed during the pull"));
    }
  }
  RETURN_IF_ERROR(SyncFolder(kLayers));
  FaultPoint("image.publish.layers_moved");
  RETURN_IF_ERROR(
      WriteRecord(kImages, absl::StrCat(image.manifest.hex(), kSuffix), ImageText(image)));
  FaultPoint("image.publish.recorded");
  return WriteRef(ref);
}

absl::Status Store::WriteRef(const StoredRef& ref) const {
  const Json record = {
      {"name", ref.name}, {"manifest", ref.manifest.ToString()}, {"resolved_at", ref.resolved_at}};
  return WriteRecord(kStoreRefs, RecordName(ref.name), record.dump());
}

absl::Status Store::CheckIsHere(const Digest& manifest) const {
  if (FindImage(manifest).has_value()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("image ", manifest.ToString(), " is not here"));
}

absl::Status Store::SetRef(const StoredRef& ref) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  RETURN_IF_ERROR(CheckIsHere(ref.manifest));
  return WriteRef(ref);
}

absl::Status Store::TakeLease(const Lease& lease) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  RETURN_IF_ERROR(CheckIsHere(lease.manifest));
  const Json record = {
      {"task", lease.task}, {"manifest", lease.manifest.ToString()}, {"task_dir", lease.task_dir}};
  return WriteRecord(kLeases, RecordName(lease.task), record.dump());
}

absl::Status Store::DropLease(const std::string& task) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  const std::string name = absl::StrCat(kLeases, "/", RecordName(task));
  const absl::StatusOr<std::string> text = ReadFileAt(dir_.get(), name, kMaxRecordBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  RETURN_IF_ERROR(text.status());
  if (const absl::StatusOr<Lease> lease = ReadLease(*text); lease.ok()) {
    // The image was in use until now.
    const std::string image = absl::StrCat(kImages, "/", lease->manifest.hex(), kSuffix);
    if (::utimensat(dir_.get(), image.c_str(), nullptr, 0) != 0 && errno != ENOENT) {
      return ErrnoStatus("note the time of the last use");
    }
  }
  if (::unlinkat(dir_.get(), name.c_str(), 0) != 0) return ErrnoStatus("remove the lease");
  return SyncFolder(kLeases);
}

absl::Status Store::Pin(const std::string& name) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  return WriteRecord(kStorePins, RecordName(name), Json{{"name", name}}.dump());
}

absl::Status Store::Unpin(const std::string& name) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  if (::unlinkat(dir_.get(), absl::StrCat(kStorePins, "/", RecordName(name)).c_str(), 0) != 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("'", name, "' is not pinned"));
    return ErrnoStatus("remove the pin");
  }
  return SyncFolder(kStorePins);
}

absl::Status Store::RemoveRef(const std::string& name) const {
  ASSIGN_OR_RETURN(const Fd lock, Lock());
  if (::unlinkat(dir_.get(), absl::StrCat(kStoreRefs, "/", RecordName(name)).c_str(), 0) != 0 &&
      errno != ENOENT) {
    return ErrnoStatus("remove the name");
  }
  return SyncFolder(kStoreRefs);
}

absl::StatusOr<int64_t> Store::Remove(const Digest& manifest) const {
  int64_t bytes = 0;
  {
    ASSIGN_OR_RETURN(const Fd lock, Lock());
    for (const Lease& lease : Leases()) {
      if (lease.manifest == manifest) {
        return absl::FailedPreconditionError(
            absl::StrCat("image ", manifest.Short(), " is used by the task ", lease.task));
      }
    }
    std::map<std::string, int64_t> layers;
    for (const StoredImage& image : Images()) {
      if (image.manifest != manifest) continue;
      for (const StoredLayer& layer : image.layers) layers[layer.key] = layer.bytes;
    }
    for (const StoredRef& ref : Refs()) {
      if (ref.manifest == manifest &&
          ::unlinkat(dir_.get(), absl::StrCat(kStoreRefs, "/", RecordName(ref.name)).c_str(), 0) !=
              0) {
        return ErrnoStatus("remove a name");
      }
    }
    RETURN_IF_ERROR(SyncFolder(kStoreRefs));
    FaultPoint("image.remove.names_gone");
    const std::string record = absl::StrCat(kImages, "/", manifest.hex(), kSuffix);
    if (::unlinkat(dir_.get(), record.c_str(), 0) != 0) {
      if (errno == ENOENT) {
        return absl::NotFoundError(absl::StrCat("image ", manifest.Short(), " is not here"));
      }
      return ErrnoStatus("remove the image's record");
    }
    RETURN_IF_ERROR(SyncFolder(kImages));
    FaultPoint("image.remove.record_gone");
    RETURN_IF_ERROR(DiscardUnreferenced());
    FaultPoint("image.remove.layers_discarded");
    for (const auto& [key, size] : layers) bytes += HasLayer(key) ? 0 : size;
  }
  // Without the lock: a large layer takes a second.
  RETURN_IF_ERROR(EmptyTrash());
  return bytes;
}

absl::Status Store::RemoveLayer(const std::string& key) const {
  {
    ASSIGN_OR_RETURN(const Fd lock, Lock());
    for (const Lease& lease : Leases()) {
      const std::optional<StoredImage> image = FindImage(lease.manifest);
      if (!image.has_value()) continue;
      for (const StoredLayer& layer : image->layers) {
        if (layer.key == key) {
          return absl::FailedPreconditionError(
              absl::StrCat("layer ", key.substr(0, 12), " is used by the task ", lease.task));
        }
      }
    }
    if (HasLayer(key)) RETURN_IF_ERROR(Discard(kLayers, key));
    RETURN_IF_ERROR(SyncFolder(kLayers));
  }
  return EmptyTrash();
}

absl::Status Store::Discard(const std::string& folder, const std::string& name) const {
  const std::string from = absl::StrCat(folder, "/", name);
  const std::string to = absl::StrCat(kTrash, "/", RandomName());
  if (::renameat(dir_.get(), from.c_str(), dir_.get(), to.c_str()) != 0) {
    return ErrnoStatus(absl::StrCat("move ", from, " to the trash"));
  }
  return absl::OkStatus();
}

absl::Status Store::DiscardUnreferenced() const {
  std::set<std::string> wanted;
  for (const StoredImage& image : Images()) {
    for (const StoredLayer& layer : image.layers) wanted.insert(layer.key);
  }
  for (const std::string& name : Names(path_ + "/" + kLayers)) {
    // Whatever else lies there is not ours to remove.
    if (IsLayerKey(name) && wanted.count(name) == 0) RETURN_IF_ERROR(Discard(kLayers, name));
  }
  return SyncFolder(kLayers);
}

absl::Status Store::DiscardDeadPulls() const {
  for (const std::string& name : Names(path_ + "/" + kTmp)) {
    if (TryLock(absl::StrCat(path_, "/", kTmp, "/", name)).valid()) {
      RETURN_IF_ERROR(Discard(kTmp, name));
    }
  }
  return absl::OkStatus();
}

// Whoever writes a record has the store's lock, as has the caller of this.
absl::Status Store::RemoveHalfRecords() const {
  for (const char* folder : {kImages, kStoreRefs, kLeases, kStorePins}) {
    for (const std::string& name : Names(absl::StrCat(path_, "/", folder))) {
      if (!absl::EndsWith(name, kHalfSuffix)) continue;
      const std::string path = absl::StrCat(folder, "/", name);
      if (::unlinkat(dir_.get(), path.c_str(), 0) != 0 && errno != ENOENT) {
        return ErrnoStatus(absl::StrCat("remove ", path));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Store::EmptyTrash() const {
  for (const std::string& name : Names(path_ + "/" + kTrash)) {
    const std::string path = absl::StrCat(path_, "/", kTrash, "/", name);
    const Fd lock = TryLock(path);
    if (lock.valid()) RETURN_IF_ERROR(RemoveTree(path));
  }
  return absl::OkStatus();
}

absl::Status Store::Sweep() const {
  {
    ASSIGN_OR_RETURN(const Fd lock, Lock());
    for (const StoredImage& image : Images()) {
      if (FindImage(image.manifest).has_value()) continue;
      const std::string record = absl::StrCat(kImages, "/", image.manifest.hex(), kSuffix);
      if (::unlinkat(dir_.get(), record.c_str(), 0) != 0 && errno != ENOENT) {
        return ErrnoStatus(absl::StrCat("remove ", record, ", whose layers are gone"));
      }
    }
    for (const StoredRef& ref : Refs()) {
      if (FindImage(ref.manifest).has_value()) continue;
      const std::string record = absl::StrCat(kStoreRefs, "/", RecordName(ref.name));
      if (::unlinkat(dir_.get(), record.c_str(), 0) != 0 && errno != ENOENT) {
        return ErrnoStatus(absl::StrCat("remove ", record, ", whose image is gone"));
      }
    }
    RETURN_IF_ERROR(RemoveHalfRecords());
    RETURN_IF_ERROR(DiscardUnreferenced());
    RETURN_IF_ERROR(DiscardDeadPulls());
  }
  return EmptyTrash();
}

}  // namespace jenkins_agent
