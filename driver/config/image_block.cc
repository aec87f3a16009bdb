#include "driver/config/image_block.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxNames = 100;  // of pins and of pre_pull

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckPolicy(const std::string& policy) {
  if (policy == kPullIfNotPresent || policy == kPullAlways || policy == kPullNever) {
    return absl::OkStatus();
  }
  return Invalid(Quoted(policy), " is not known (allowed: \"", kPullIfNotPresent, "\", \"",
                 kPullAlways, "\", \"", kPullNever, "\")");
}

// No value is repeated: it may hold a secret.
absl::Status CheckAuth(const ImageAuth& auth) {
  if (!auth.present) return absl::OkStatus();
  if (auth.username.empty()) return Invalid("username: is not set");
  if (auth.password.empty()) return Invalid("password: is not set");
  if (absl::StrContains(auth.username, ':')) return Invalid("username: has a ':' in it");
  return absl::OkStatus();
}

// An age may be months, longer than what CheckDuration takes.
absl::Status CheckAge(const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration() &&
      duration != absl::InfiniteDuration()) {
    return absl::OkStatus();
  }
  return Invalid(Quoted(text), " is no duration; write it like \"90s\", \"5m\" or \"720h\"");
}

absl::Status CheckRange(int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Invalid(value, " is out of range (allowed: ", least, " to ", most, ")");
}

absl::Status CheckGc(const ImageGcBlock& gc) {
  constexpr int64_t kMaxMiB = int64_t{1} << 30;  // a PiB
  RETURN_IF_ERROR(CheckAge(gc.image_delay), "image_delay");
  RETURN_IF_ERROR(CheckAge(gc.image_max_age), "image_max_age");
  RETURN_IF_ERROR(CheckRange(gc.high_watermark, 1, 100), "high_watermark");
  RETURN_IF_ERROR(CheckRange(gc.low_watermark, 1, 100), "low_watermark");
  if (gc.low_watermark > gc.high_watermark) {
    return Invalid("low_watermark: ", gc.low_watermark, " is above high_watermark, ",
                   gc.high_watermark);
  }
  RETURN_IF_ERROR(CheckRange(gc.min_free, 0, kMaxMiB), "min_free");
  RETURN_IF_ERROR(CheckRange(gc.max_store_size, 0, kMaxMiB), "max_store_size");
  return Annotate(CheckRange(gc.keep_recent, 0, 1000), "keep_recent");
}

absl::Status CheckRegistry(const RegistryBlock& registry) {
  if (registry.host.empty()) return Invalid("host: is not set; name it as in an image's name");
  for (const std::string& mirror : registry.mirrors) {
    if (!absl::StartsWith(mirror, "https://") && !absl::StartsWith(mirror, "http://")) {
      return Invalid("mirrors: ", Quoted(mirror), " does not begin with https:// or http://");
    }
  }
  if (!registry.ca_file.empty()) RETURN_IF_ERROR(CheckAbsolutePath(registry.ca_file), "ca_file");
  return Annotate(CheckAuth(registry.auth), "auth");
}

absl::Status CheckRegistries(const std::vector<RegistryBlock>& registries) {
  std::set<std::string> hosts;
  for (size_t i = 0; i < registries.size(); ++i) {
    RETURN_IF_ERROR(CheckRegistry(registries[i]), absl::StrCat("registry[", i, "]"));
    if (!hosts.insert(registries[i].host).second) {
      return Invalid("registry[", i, "].host: ", Quoted(registries[i].host), " is there twice");
    }
  }
  return absl::OkStatus();
}

Option AuthOption(ImageAuth& auth, const char* help) {
  return {"auth",
          OptionBlock{&auth.present,
                      {{"username", &auth.username, "the user at the registry"},
                       {"password", &auth.password, "its password or token"}}},
          help};
}

std::vector<Option> GcOptions(ImageGcBlock& gc) {
  return {
      {"image", &gc.enabled, "whether images are ever removed"},
      {"image_delay", &gc.image_delay, "an image stays at least that long after its last use"},
      {"image_max_age", &gc.image_max_age,
       "an image that nobody used for so long is removed; `0s`: never for its age"},
      {"high_watermark", &gc.high_watermark,
       "images are removed, the longest unused first, when the file system is fuller, in percent"},
      {"low_watermark", &gc.low_watermark, "... until it is down to this"},
      {"min_free", &gc.min_free, "... or when less is free, in MiB"},
      {"max_store_size", &gc.max_store_size,
       "... or when the images take more, in MiB; `0`: no limit"},
      {"keep_recent", &gc.keep_recent,
       "that many images, the last used, are not removed for space"},
  };
}

std::vector<Option> RegistryOptions(RegistryBlock& registry) {
  return {
      {"host", &registry.host, "its name in images' names, `HOST` or `HOST:PORT`"},
      {"mirrors", &registry.mirrors,
       "`https://HOST[:PORT]` to ask first for content; names are looked up at the registry"},
      {"ca_file", &registry.ca_file,
       "absolute path of a PEM file with the certificates to trust instead of the system's"},
      {"plain_http", &registry.plain_http, "whether the registry has no TLS"},
      AuthOption(registry.auth, "the node's login there; a job's own comes first"),
  };
}

}  // namespace

std::vector<Option> OptionsFor(ImageBlock& image) {
  return {
      {"image", &image.image,
       "the root file system: `[HOST/]NAME[:TAG][@DIGEST]` of a registry, or another source of "
       "`images pull`; left out: the host's programs, read-only"},
      {"image_pull_policy", &image.pull_policy,
       "`if_not_present`: a kept image is used without asking anybody; `always`: the registry is "
       "asked, and if it cannot be, the kept one is used; `never`"},
      {"image_pull_timeout", &image.pull_timeout, "for a whole pull"},
      AuthOption(image.auth,
                 "login at the image's registry; left out: the plugin's `images.registry` or "
                 "`images.auth_file`"),
  };
}

Option ImagesOption(ImagesBlock& images) {
  return {
      "images",
      OptionBlock{
          &images.present,
          {
              {"dir", &images.dir,
               "where images are kept, an absolute path; left out: `images` below `state_dir`"},
              {"auth_file", &images.auth_file,
               "docker's `config.json` with the node's logins and credential helpers, an absolute "
               "path"},
              {"pins", &images.pins,
               "images that are never removed, by name; `*` stands for any text"},
              {"pre_pull", &images.pre_pull,
               "images to fetch in the background when they are missing; never removed"},
              {"gc", OptionBlock{&images.gc.present, GcOptions(images.gc)},
               "when images are removed"},
              {"registry", OptionBlockList{[&images] {
                 return RegistryOptions(images.registries.emplace_back());
               }},
               "how to reach a registry, one block each"},
          }},
      "the images that are kept on this node"};
}

absl::Status ValidateImage(const ImageBlock& image) {
  RETURN_IF_ERROR(CheckPolicy(image.pull_policy), "image_pull_policy");
  RETURN_IF_ERROR(CheckDuration(image.pull_timeout, absl::Seconds(1)), "image_pull_timeout");
  if (image.auth.present && image.image.empty()) return Invalid("auth: there is no image");
  return Annotate(CheckAuth(image.auth), "auth");
}

absl::Status ValidateImages(const ImagesBlock& images) {
  if (!images.dir.empty()) RETURN_IF_ERROR(CheckAbsolutePath(images.dir), "images.dir");
  if (!images.auth_file.empty()) {
    RETURN_IF_ERROR(CheckAbsolutePath(images.auth_file), "images.auth_file");
  }
  for (const auto* names : {&images.pins, &images.pre_pull}) {
    if (names->size() > kMaxNames) {
      return Invalid("images.", names == &images.pins ? "pins" : "pre_pull", ": more than ",
                     kMaxNames, " names");
    }
  }
  // The path goes on with '.': "images.gc.min_free".
  if (absl::Status gc = CheckGc(images.gc); !gc.ok()) {
    return Invalid("images.gc.", gc.message());
  }
  if (absl::Status registries = CheckRegistries(images.registries); !registries.ok()) {
    return Invalid("images.", registries.message());
  }
  return absl::OkStatus();
}

std::chrono::milliseconds ImageDuration(const std::string& text) {
  absl::Duration duration;
  (void)absl::ParseDuration(text, &duration);
  return absl::ToChronoMilliseconds(duration);
}

}  // namespace jenkins_agent
