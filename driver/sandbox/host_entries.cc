#include "driver/sandbox/host_entries.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

constexpr char kEtc[] = "/etc";
constexpr int64_t kNsPerSecond = 1'000'000'000;
// The kernel's clock for ctime stands still for up to a tick, and some file systems count seconds:
// what changes right behind a look must not have the time of what changed before it.
constexpr int64_t kSettledNs = 2 * kNsPerSecond;

HostEntry LookAtEntry(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (error || !fs::exists(status)) return {};
  if (!fs::is_symlink(status)) return {.kind = HostEntry::Kind::kOther, .text = {}};
  const fs::path text = fs::read_symlink(path, error);
  if (error) return {.kind = HostEntry::Kind::kOther, .text = {}};
  return {.kind = HostEntry::Kind::kLink, .text = text.string()};
}

std::vector<std::string> NamesInEtc(const HostPlaces& places) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(places.root + kEtc, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (absl::StartsWith(name, places.etc_prefix)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A link or directory anywhere on the way to a path may become another one.
std::vector<std::string> DirectoriesAbove(const HostPlaces& places) {
  std::set<std::string> directories = {places.root + kEtc};
  for (const std::string& path : places.paths) {
    for (fs::path above = fs::path(path).parent_path(); above.has_relative_path();
         above = above.parent_path()) {
      directories.insert(places.root + above.string());
    }
    directories.insert(places.root + "/");
  }
  return {directories.begin(), directories.end()};
}

}  // namespace

HostEntries LookAtHost(const HostPlaces& places) {
  HostEntries entries;
  entries.etc = NamesInEtc(places);
  for (const std::string& path : places.paths) {
    entries.by_path[path] = LookAtEntry(places.root + path);
  }
  for (const std::string& name : entries.etc) {
    const std::string path = absl::StrCat(kEtc, "/", name);
    entries.by_path[path] = LookAtEntry(places.root + path);
  }
  return entries;
}

HostEntryCache::HostEntryCache(HostPlaces places)
    : places_(std::move(places)), directories_(DirectoriesAbove(places_)) {}

HostEntryCache::Directory HostEntryCache::LookAt(const std::string& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) return {};
  return {.exists = true,
          .device = found.st_dev,
          .inode = found.st_ino,
          .changed_ns = found.st_ctim.tv_sec * kNsPerSecond + found.st_ctim.tv_nsec};
}

std::vector<HostEntryCache::Directory> HostEntryCache::LookAtDirectories() const {
  std::vector<Directory> found;
  found.reserve(directories_.size());
  for (const std::string& path : directories_) found.push_back(LookAt(path));
  return found;
}

// The directories first: what changes between the two looks is noticed by the next one.
std::shared_ptr<const HostEntries> HostEntryCache::Get(int64_t now_ns) {
  std::vector<Directory> directories = LookAtDirectories();
  {
    MutexLock lock(mutex_);
    if (entries_ != nullptr && directories == seen_) return entries_;
  }
  auto entries = std::make_shared<const HostEntries>(LookAtHost(places_));
  const bool settled = std::all_of(
      directories.begin(), directories.end(),
      [now_ns](const Directory& directory) { return directory.changed_ns + kSettledNs < now_ns; });
  if (!settled) return entries;
  MutexLock lock(mutex_);
  seen_ = std::move(directories);
  entries_ = entries;
  return entries;
}

}  // namespace jenkins_agent
