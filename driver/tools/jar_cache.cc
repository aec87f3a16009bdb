#include "driver/tools/jar_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/tools/http.h"
#include "driver/tools/jar.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

constexpr mode_t kCachedJarMode = 0444;  // bound into sandboxes, read there by any user
constexpr size_t kMaxOriginBytes = 4096;
constexpr size_t kOriginNameBytes = 32;
constexpr char kJarSuffix[] = ".jar";
constexpr char kOriginSuffix[] = ".origin";

// Never a url on disk: it may hold a password.
absl::StatusOr<std::string> OriginName(const AgentJarRequest& request, const std::string& jar_url) {
  const bool authenticated = absl::StartsWith(jar_url, "https://") && request.ca_file.empty();
  ASSIGN_OR_RETURN(
      const std::string digest,
      Sha256OfText(absl::StrCat(authenticated ? "" : request.job, "\n", DisplayUrl(jar_url))));
  return absl::StrCat(digest.substr(0, kOriginNameBytes), kOriginSuffix);
}

std::string StringOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

absl::StatusOr<CachedJar> OpenCachedJar(int cache_fd, const std::string& origin_name) {
  ASSIGN_OR_RETURN(const std::string text, ReadFileAt(cache_fd, origin_name, kMaxOriginBytes));
  const Json origin = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!origin.is_object()) return absl::DataLossError(origin_name);
  CachedJar jar;
  jar.sha256 = StringOf(origin, "sha256");
  jar.validators = {StringOf(origin, "etag"), StringOf(origin, "last_modified")};
  const std::string name = absl::StrCat(jar.sha256, kJarSuffix);
  if (absl::StrContains(name, '/')) return absl::DataLossError(origin_name);
  ASSIGN_OR_RETURN(jar.file, OpenAt(cache_fd, name, O_RDONLY | O_NOFOLLOW));
  ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(jar.file.get()));
  if (sha256 == jar.sha256) return jar;
  ::unlinkat(cache_fd, name.c_str(), 0);
  return absl::DataLossError(name);
}

// Of the files that end so the oldest, until `limit` are left. Best effort.
void Prune(const std::string& cache_dir, absl::string_view suffix, size_t limit) {
  namespace fs = std::filesystem;
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache_dir, error)) {
    if (!absl::EndsWith(entry.path().native(), suffix)) continue;
    files.emplace_back(entry.last_write_time(error), entry.path());
  }
  if (files.size() <= limit) return;
  std::sort(files.begin(), files.end());
  for (size_t i = 0; i < files.size() - limit; ++i) fs::remove(files[i].second, error);
}

}  // namespace

CachedJars FindCachedJars(int cache_fd, const AgentJarRequest& request) {
  CachedJars jars;
  for (const std::string& url : request.urls) {
    for (const std::string& jar_url : JarUrls(url)) {
      const absl::StatusOr<std::string> name = OriginName(request, jar_url);
      if (!name.ok()) continue;
      absl::StatusOr<CachedJar> jar = OpenCachedJar(cache_fd, *name);
      if (jar.ok()) jars.emplace(jar_url, *std::move(jar));
    }
  }
  return jars;
}

absl::StatusOr<std::string> KeepJar(int cache_fd, const AgentJarRequest& request, int jar_fd,
                                    const std::string& sha256) {
  const std::string name = absl::StrCat(sha256, kJarSuffix);
  if (::fchmod(jar_fd, kCachedJarMode) != 0 || ::fsync(jar_fd) != 0) {
    return ErrnoStatus("agent.jar in the cache");
  }
  const std::string unnamed = absl::StrCat("/proc/self/fd/", jar_fd);
  if (::linkat(AT_FDCWD, unnamed.c_str(), cache_fd, name.c_str(), AT_SYMLINK_FOLLOW) != 0 &&
      errno != EEXIST) {
    return ErrnoStatus(absl::StrCat("link ", request.cache_dir, "/", name));
  }
  Prune(request.cache_dir, kJarSuffix, kMaxCachedJars);
  return absl::StrCat(request.cache_dir, "/", name);
}

absl::Status KeepOrigin(int cache_fd, const AgentJarRequest& request, const FetchedJar& fetched,
                        const std::string& sha256) {
  if (fetched.validators.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string name, OriginName(request, fetched.url));
  const Json origin = {{"sha256", sha256},
                       {"etag", fetched.validators.etag},
                       {"last_modified", fetched.validators.last_modified}};
  RETURN_IF_ERROR(ReplaceFileAt(cache_fd, name, origin.dump()));
  Prune(request.cache_dir, kOriginSuffix, kMaxOrigins);
  return absl::OkStatus();
}

}  // namespace jenkins_agent
