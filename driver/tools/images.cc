#include "driver/tools/images.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "driver/base/status.h"
#include "driver/base/text_table.h"
#include "driver/image/gc.h"
#include "driver/image/image_job.h"
#include "driver/image/image_name.h"
#include "driver/image/manifest.h"
#include "driver/image/store.h"
#include "driver/image/verify.h"
#include "driver/tools/image_worker.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kDefaultStore[] = "/var/lib/nomad-driver-jenkins-agent/images";
constexpr size_t kMinDigestDigits = 6;  // of an image named by the beginning of its digest

// What the command line said.
struct Options {
  std::string store = kDefaultStore;
  bool json = false;
  std::string name;
  std::vector<std::string> names;
  bool plain_http = false;
  std::string ca_file;
  std::string auth_file;
  std::vector<std::string> mirrors;
  bool no_sync = false;
  bool dry_run = false;
  GcPolicy policy;
  std::string max_age = "0s";
  std::string delay = "3m";
};

std::string Time(int64_t seconds) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(seconds),
                          absl::LocalTimeZone());
}

void PrintJson(const Json& document) {
  // Names may hold bytes that are no UTF-8.
  std::cout << document.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

// Of an image as `ls` and `du` say it.
std::string ShortDigest(const Json& image) {
  return image["manifest"].get<std::string>().substr(sizeof("sha256:") - 1, 12);
}
std::string ShownNames(const Json& image) {
  return Plain(absl::StrJoin(image["names"].get<std::vector<std::string>>(), ", "));
}

void PrintTable(const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows) {
  std::cout << FormatTable(header, rows, OutputWidth());
}

int64_t ImageBytes(const StoredImage& image) { return StoreBytes({image}); }

std::string Absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

absl::StatusOr<ImageName> NameOf(const std::string& name) {
  return ParseImageName(name, std::filesystem::current_path().string());
}

// How the store calls what people write.
absl::StatusOr<std::string> StoredName(const std::string& name) {
  ASSIGN_OR_RETURN(const ImageName parsed, NameOf(name));
  return parsed.ToString();
}

// By its name, or by the beginning of its digest.
absl::StatusOr<StoredImage> Find(const Store& store, const std::string& name) {
  if (const absl::StatusOr<std::string> stored = StoredName(name); stored.ok()) {
    if (const std::optional<StoredRef> ref = store.FindRef(*stored)) {
      if (std::optional<StoredImage> image = store.FindImage(ref->manifest))
        return *std::move(image);
    }
  }
  const absl::string_view digits = absl::StripPrefix(name, "sha256:");
  std::vector<StoredImage> found;
  for (StoredImage& image : store.Images()) {
    if (digits.size() >= kMinDigestDigits && absl::StartsWith(image.manifest.hex(), digits)) {
      found.push_back(std::move(image));
    }
  }
  if (found.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' means several images"));
  }
  if (found.empty())
    return absl::NotFoundError(absl::StrCat("image '", name, "' is not in ", store.dir()));
  return std::move(found[0]);
}

// For a command that only looks. Null, and that is said: this node never had an image; `empty` is
// what then stands for the answer in JSON.
absl::StatusOr<std::unique_ptr<Store>> OpenToLook(const Options& options, const Json& empty) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::OpenExisting(options.store);
  if (!absl::IsNotFound(store.status())) return store;
  if (options.json) {
    PrintJson(empty);
  } else {
    std::cout << store.status().message() << "\n";
  }
  return std::unique_ptr<Store>();
}

std::map<Digest, std::vector<std::string>> NamesOf(const Store& store) {
  std::map<Digest, std::vector<std::string>> names;
  for (const StoredRef& ref : store.Refs()) names[ref.manifest].push_back(ref.name);
  return names;
}

std::string ProgressBar(const PullProgress& progress) {
  constexpr int64_t kWidth = 24;
  const int64_t full = progress.bytes == 0 ? kWidth : progress.done_bytes * kWidth / progress.bytes;
  const auto filled = static_cast<size_t>(std::clamp<int64_t>(full, 0, kWidth));
  return absl::StrCat("[", std::string(filled, '='), std::string(kWidth - filled, ' '), "]");
}

// "2/5 layers  101MiB of 245MiB  50MiB/s  3s left"
std::string ProgressText(const PullProgress& progress, absl::Duration elapsed) {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const double speed = seconds > 0 ? static_cast<double>(progress.done_bytes) / seconds : 0;
  const auto left = static_cast<double>(progress.bytes - progress.done_bytes);
  return absl::StrCat(
      progress.cached_layers + progress.done_layers, "/", progress.layers, " layers  ",
      HumanBytes(progress.done_bytes), " of ", HumanBytes(progress.bytes), "  ",
      HumanBytes(static_cast<uint64_t>(speed)), "/s",
      speed > 0 && left > 0
          ? absl::StrCat("  ",
                         HumanDuration(absl::ToChronoNanoseconds(absl::Seconds(left / speed))),
                         " left")
          : "");
}

// Images that nothing may remove, and why.
std::map<Digest, std::string> Kept(const Store& store) {
  std::map<Digest, std::string> kept;
  const std::vector<std::string> pins = store.Pins();
  for (const StoredRef& ref : store.Refs()) {
    if (std::find(pins.begin(), pins.end(), ref.name) != pins.end()) kept[ref.manifest] = "pinned";
  }
  for (const Lease& lease : store.Leases()) kept[lease.manifest] = "in use";
  return kept;
}

// Where docker and podman look for it; empty: there is none.
std::string DefaultAuthFile() {
  const char* const config = ::getenv("DOCKER_CONFIG");
  const char* const home = ::getenv("HOME");
  const std::string path = config != nullptr ? absl::StrCat(config, "/config.json")
                           : home != nullptr ? absl::StrCat(home, "/.docker/config.json")
                                             : "";
  return path.empty() || ::access(path.c_str(), F_OK) != 0 ? "" : path;
}

// On a terminal one line that is written over and over, else a line every some seconds.
class Progress {
 public:
  explicit Progress(bool quiet) : quiet_(quiet) {}

  void Show(const PullProgress& progress) {
    const absl::Time now = absl::Now();
    if (quiet_ || (!on_terminal_ && now < next_line_)) return;
    next_line_ = now + kLineInterval;
    const std::string text = ProgressText(progress, now - start_);
    if (on_terminal_) {
      absl::FPrintF(stderr, "\r\x1b[K%s %s", ProgressBar(progress), text);
    } else {
      absl::FPrintF(stderr, "%s\n", text);
    }
    ::fflush(stderr);
  }
  void End() const {
    if (on_terminal_ && !quiet_) absl::FPrintF(stderr, "\r\x1b[K");
  }
  double seconds() const { return absl::ToDoubleSeconds(absl::Now() - start_); }

 private:
  static constexpr absl::Duration kLineInterval = absl::Seconds(5);
  const bool quiet_;
  const bool on_terminal_ = ::isatty(STDERR_FILENO) == 1;
  const absl::Time start_ = absl::Now();
  absl::Time next_line_ = start_ + kLineInterval;
};

absl::Status RunPull(const Options& options) {
  if (::geteuid() != 0) {
    return absl::PermissionDeniedError("needs root: layers hold files of other users");
  }
  ASSIGN_OR_RETURN(const ImageName name, NameOf(options.name));
  const ImageJob job = {
      .store = Absolute(options.store),
      .image = name.ToString(),
      .plain_http = options.plain_http,
      .ca_file = options.ca_file.empty() ? "" : Absolute(options.ca_file),
      .mirrors = options.mirrors,
      .credentials = std::nullopt,
      .auth_file = options.auth_file.empty() ? DefaultAuthFile() : Absolute(options.auth_file),
      .auth_helper = "",
      .sync = !options.no_sync};
  Progress line(options.json);
  const absl::StatusOr<PullResult> result = PullConfined(
      job, /*cancel_fd=*/-1, [&line](const PullProgress& progress) { line.Show(progress); });
  line.End();
  RETURN_IF_ERROR(result.status());
  const PullProgress& done = result->progress;
  if (options.json) {
    PrintJson({{"name", name.ToString()},
               {"manifest", result->manifest.ToString()},
               {"cached", result->cached},
               {"layers", done.layers},
               {"cached_layers", done.cached_layers},
               {"fetched_bytes", done.done_bytes},
               {"seconds", line.seconds()}});
  } else if (result->cached) {
    std::cout << name.ToString() << ": is here already (" << result->manifest.Short() << ")\n";
  } else {
    std::cout << name.ToString() << ": " << result->manifest.Short() << ", " << done.layers
              << " layers, " << done.cached_layers << " of them here before, "
              << HumanBytes(done.done_bytes) << " fetched in "
              << absl::StrFormat("%.1f s\n", line.seconds());
  }
  return absl::OkStatus();
}

absl::Status RunList(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenToLook(options, Json::array()));
  if (store == nullptr) return absl::OkStatus();
  const auto names = NamesOf(*store);
  const auto kept = Kept(*store);
  Json list = Json::array();
  for (const StoredImage& image : store->Images()) {
    const auto own = names.find(image.manifest);
    const auto why = kept.find(image.manifest);
    list.push_back({{"manifest", image.manifest.ToString()},
                    {"names", own == names.end() ? std::vector<std::string>() : own->second},
                    {"layers", image.layers.size()},
                    {"bytes", ImageBytes(image)},
                    {"pulled_at", image.pulled_at},
                    {"last_used", image.last_used},
                    {"kept", why == kept.end() ? "" : why->second}});
  }
  if (options.json) {
    PrintJson(list);
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& image : list) {
    rows.push_back({ShortDigest(image), HumanBytes(image["bytes"]), Time(image["last_used"]),
                    image["kept"], ShownNames(image)});
  }
  PrintTable({"DIGEST", "SIZE", "LAST USED", "KEPT", "NAMES"}, rows);
  return absl::OkStatus();
}

absl::Status RunInspect(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::OpenExisting(options.store));
  ASSIGN_OR_RETURN(const StoredImage image, Find(*store, options.name));
  ASSIGN_OR_RETURN(const ImageConfig config, ParseImageConfig(image.config), options.name);
  Json layers = Json::array();
  for (const StoredLayer& layer : image.layers) {
    layers.push_back({{"path", store->LayerPath(layer.key)}, {"bytes", layer.bytes}});
  }
  PrintJson({{"manifest", image.manifest.ToString()},
             {"names", NamesOf(*store)[image.manifest]},
             {"platform", config.platform.ToString()},
             {"pulled_at", image.pulled_at},
             {"last_used", image.last_used},
             {"bytes", ImageBytes(image)},
             {"env", config.env},
             {"entrypoint", config.entrypoint},
             {"command", config.command},
             {"user", config.user},
             {"work_dir", config.work_dir},
             {"layers", layers}});
  return absl::OkStatus();
}

// For each image its whole size, and what removing it alone would free.
absl::Status RunDiskUse(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                   OpenToLook(options, {{"images", Json::array()}, {"bytes", 0}}));
  if (store == nullptr) return absl::OkStatus();
  const std::vector<StoredImage> images = store->Images();
  auto names = NamesOf(*store);
  const int64_t total = StoreBytes(images);
  Json list = Json::array();
  for (const StoredImage& image : images) {
    std::vector<StoredImage> others;
    for (const StoredImage& other : images) {
      if (other.manifest != image.manifest) others.push_back(other);
    }
    list.push_back({{"manifest", image.manifest.ToString()},
                    {"names", names[image.manifest]},
                    {"bytes", ImageBytes(image)},
                    {"own_bytes", total - StoreBytes(others)}});
  }
  if (options.json) {
    PrintJson({{"images", list}, {"bytes", total}});
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& image : list) {
    rows.push_back({ShortDigest(image), HumanBytes(image["bytes"]), HumanBytes(image["own_bytes"]),
                    ShownNames(image)});
  }
  PrintTable({"DIGEST", "SIZE", "ITS ALONE", "NAMES"}, rows);
  std::cout << "all images: " << HumanBytes(total) << "\n";
  return absl::OkStatus();
}

absl::Status RunRemove(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::OpenExisting(options.store));
  Json removed = Json::array();
  for (const std::string& name : options.names) {
    ASSIGN_OR_RETURN(const StoredImage image, Find(*store, name));
    const auto kept = Kept(*store);
    if (const auto why = kept.find(image.manifest); why != kept.end() && why->second == "pinned") {
      return absl::FailedPreconditionError(absl::StrCat(name, " is pinned: images unpin it first"));
    }
    ASSIGN_OR_RETURN(const int64_t freed, store->Remove(image.manifest), name);
    removed.push_back({{"name", name}, {"manifest", image.manifest.ToString()}, {"bytes", freed}});
    if (!options.json) std::cout << name << ": removed, " << HumanBytes(freed) << " freed\n";
  }
  if (options.json) PrintJson({{"removed", removed}});
  return absl::OkStatus();
}

absl::StatusOr<std::chrono::seconds> ParseSeconds(const std::string& option,
                                                  const std::string& text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration)) {
    return absl::InvalidArgumentError(
        absl::StrCat(option, " '", text, "' is no duration such as 90s or 72h"));
  }
  return absl::ToChronoSeconds(duration);
}

absl::Status RunGc(const Options& options) {
  GcPolicy policy = options.policy;
  ASSIGN_OR_RETURN(policy.max_age, ParseSeconds("--max-age", options.max_age));
  ASSIGN_OR_RETURN(policy.delay, ParseSeconds("--delay", options.delay));
  RETURN_IF_ERROR(CheckGcPolicy(policy));
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                   OpenToLook(options, {{"removed", Json::array()},
                                        {"bytes", 0},
                                        {"missing_bytes", 0},
                                        {"dry_run", options.dry_run}}));
  if (store == nullptr) return absl::OkStatus();
  if (!options.dry_run) RETURN_IF_ERROR(store->Sweep());
  ASSIGN_OR_RETURN(const DiskSpace disk, store->Space());
  std::set<Digest> kept;
  for (const auto& [digest, why] : Kept(*store)) kept.insert(digest);
  const GcChoice choice = ChooseImages(policy, store->Images(), kept, disk, ::time(nullptr));
  auto names = NamesOf(*store);
  Json removed = Json::array();
  for (const Digest& digest : choice.images) {
    if (!options.dry_run) RETURN_IF_ERROR(store->Remove(digest).status());
    removed.push_back({{"manifest", digest.ToString()}, {"names", names[digest]}});
    if (!options.json) {
      std::cout << (options.dry_run ? "would remove " : "removed ") << digest.Short() << " "
                << absl::StrJoin(names[digest], ", ") << "\n";
    }
  }
  if (options.json) {
    PrintJson({{"removed", removed},
               {"bytes", choice.freed},
               {"missing_bytes", choice.missing},
               {"dry_run", options.dry_run}});
    return absl::OkStatus();
  }
  std::cout << choice.images.size() << " images, " << HumanBytes(choice.freed) << "\n";
  if (choice.missing > 0) {
    std::cout << "still too much by " << HumanBytes(choice.missing)
              << ": what is left is in use, pinned, recent or not of this store\n";
  }
  return absl::OkStatus();
}

absl::Status RunPin(const Options& options, bool pin) {
  // A name may be pinned before its first pull.
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                   pin ? Store::Open(options.store) : Store::OpenExisting(options.store));
  ASSIGN_OR_RETURN(const std::string name, StoredName(options.name));
  RETURN_IF_ERROR(pin ? store->Pin(name) : store->Unpin(name));
  if (options.json) PrintJson({{"name", name}, {"pinned", pin}});
  return absl::OkStatus();
}

// One line an image, one more for each layer that is not as it was.
void PrintVerdicts(const Json& images) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& image : images) {
    rows.push_back({ShortDigest(image), image["state"], ShownNames(image)});
    for (const Json& layer : image["layers"]) {
      if (layer["why"].get<std::string>().empty()) continue;
      rows.push_back({"", "",
                      absl::StrCat(Plain(layer["path"].get<std::string>()), ": ",
                                   Plain(layer["why"].get<std::string>()))});
    }
  }
  PrintTable({"DIGEST", "STATE", "NAMES"}, rows);
}

const char* Said(LayerState state) {
  switch (state) {
    case LayerState::kIntact:
      return "intact";
    case LayerState::kDamaged:
      return "damaged";
    case LayerState::kUnknown:
      return "unknown";
    case LayerState::kGone:
      break;
  }
  return "gone";
}

// Layers that images share are read once.
absl::Status RunVerify(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                   !options.name.empty() ? Store::OpenExisting(options.store)
                                         : OpenToLook(options, {{"images", Json::array()},
                                                                {"damaged_layers", 0},
                                                                {"removed", !options.dry_run}}));
  if (store == nullptr) return absl::OkStatus();
  std::vector<StoredImage> images = store->Images();
  if (!options.name.empty()) {
    ASSIGN_OR_RETURN(const StoredImage image, Find(*store, options.name));
    images = {image};
  }
  auto names = NamesOf(*store);
  std::map<std::string, LayerVerdict> verdicts;
  Json list = Json::array();
  for (const StoredImage& image : images) {
    LayerState worst = LayerState::kIntact;
    Json layers = Json::array();
    for (const StoredLayer& layer : image.layers) {
      const auto [found, is_new] = verdicts.try_emplace(layer.key);
      if (is_new) found->second = VerifyLayer(*store, layer);
      const LayerVerdict& verdict = found->second;
      if (verdict.state == LayerState::kDamaged || worst == LayerState::kIntact) {
        worst = verdict.state;
      }
      layers.push_back({{"key", layer.key},
                        {"path", store->LayerPath(layer.key)},
                        {"state", Said(verdict.state)},
                        {"why", verdict.why}});
    }
    list.push_back({{"manifest", image.manifest.ToString()},
                    {"names", names[image.manifest]},
                    {"state", Said(worst)},
                    {"layers", layers}});
  }
  absl::Status failed;
  int64_t damaged = 0;
  for (const auto& [key, verdict] : verdicts) {
    if (verdict.state != LayerState::kDamaged) continue;
    ++damaged;
    if (!options.dry_run) failed.Update(store->RemoveLayer(key));
  }
  if (options.json) {
    PrintJson({{"images", list}, {"damaged_layers", damaged}, {"removed", !options.dry_run}});
  } else {
    PrintVerdicts(list);
  }
  if (damaged == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(damaged, damaged == 1 ? " layer is damaged" : " layers are damaged",
                   !failed.ok()      ? absl::StrCat(" and could not be removed: ", failed.message(),
                                                    "; stop it and verify again")
                   : options.dry_run ? ""
                                     : " and removed: pull the images that had them again"));
}

}  // namespace

void AddImageCommands(CLI::App& app, int& exit_code) {
  // Lives as long as the callbacks.
  const auto options = std::make_shared<Options>();
  CLI::App* const images = app.add_subcommand("images", "The images on this node");
  images->require_subcommand(1);
  images->add_option("--store", options->store, "The store's directory")->capture_default_str();
  const auto add = [&](const char* name, const char* help, absl::Status (*run)(const Options&)) {
    CLI::App* const command = images->add_subcommand(name, help);
    command->fallthrough();  // --store may stand behind the command, too
    command->callback([options, run, &exit_code] {
      if (const absl::Status status = run(*options); !status.ok()) {
        std::cerr << "nomad-driver-jenkins-agent: " << status.message() << std::endl;
        exit_code = EXIT_FAILURE;
      }
    });
    return command;
  };
  const auto add_json = [&](CLI::App* command) {
    command->add_flag("--json", options->json, "Print JSON");
  };
  const auto add_name = [&](CLI::App* command, const char* help) {
    command->add_option("name", options->name, help)->required();
  };

  add_json(add("ls", "List the images", &RunList));
  add_json(add("du", "What the images take, together and each alone", &RunDiskUse));
  CLI::App* const pull = add("pull", "Fetch an image, or what has changed of it", &RunPull);
  add_name(pull,
           "[HOST/]REPOSITORY[:TAG][@DIGEST], oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME], "
           "docker-archive:FILE[:NAME], or rootfs:DIRECTORY or FILE");
  add_json(pull);
  pull->add_flag("--plain-http", options->plain_http, "The registry has no TLS");
  pull->add_option("--ca-file", options->ca_file,
                   "Certificates (PEM) to trust instead of the system's");
  pull->add_option("--mirror", options->mirrors, "https://HOST[:PORT] to ask first for content");
  pull->add_option("--auth-file", options->auth_file,
                   "docker's config.json (default: that of $DOCKER_CONFIG or $HOME/.docker)");
  pull->add_flag("--no-sync", options->no_sync,
                 "Do not wait for the disk: a power cut may damage the image");
  CLI::App* const inspect = add("inspect", "One image as JSON", &RunInspect);
  add_name(inspect, "Name, or beginning of the digest");
  add_json(inspect);
  CLI::App* const verify =
      add("verify", "Compare the layers with what was unpacked; damaged ones go", &RunVerify);
  verify->add_option("name", options->name, "Name, or beginning of the digest (default: all)");
  verify->add_flag("--dry-run", options->dry_run, "Only say what is damaged");
  add_json(verify);
  CLI::App* const remove = add("rm", "Remove images", &RunRemove);
  remove->add_option("names", options->names, "Names, or beginnings of digests")->required();
  add_json(remove);
  CLI::App* const pin = add("pin", "Keep an image whatever happens",
                            [](const Options& all) { return RunPin(all, true); });
  add_name(pin, "The image's name; it need not be here yet");
  add_json(pin);
  CLI::App* const unpin =
      add("unpin", "Undo a pin", [](const Options& all) { return RunPin(all, false); });
  add_name(unpin, "The image's name");
  add_json(unpin);
  CLI::App* const gc = add("gc", "Remove what the policy does not keep", &RunGc);
  add_json(gc);
  GcPolicy& policy = options->policy;
  gc->add_flag("--dry-run", options->dry_run, "Only say what would go");
  gc->add_option("--max-age", options->max_age, "Remove what nobody used for so long; 0s: never")
      ->capture_default_str();
  gc->add_option("--delay", options->delay, "Keep what was used within this time")
      ->capture_default_str();
  gc->add_option("--high", policy.high_percent, "Collect when the file system is fuller, percent")
      ->capture_default_str();
  gc->add_option("--low", policy.low_percent, "... down to this")->capture_default_str();
  gc->add_option("--min-free", policy.min_free, "Collect when less is free")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  gc->add_option("--max-size", policy.max_bytes, "Collect when the store is larger; 0: no limit")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  gc->add_option("--keep-recent", policy.keep_recent, "Images that stay for their last use")
      ->capture_default_str();
}

}  // namespace jenkins_agent
