// The in-order stream of a device: one thread that runs jobs in the order they came. A job that fails stops the ones
// behind it until somebody waits: the error is kept and handed to that wait.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend.h"
#include "recording.h"

namespace westwind {

// What a job is, for error messages: the op and up to four sizes.
struct JobLabel {
  const char* op;
  struct Size {
    const char* name;
    int64_t value;
  } sizes[4] = {};
  std::string text() const;
};

// When a job was enqueued, begun and finished, in nanoseconds of a steady clock since timing was started.
struct TimedJob {
  JobLabel label;
  int64_t enqueued, begin, end;
};

class Stream {
 public:
  explicit Stream(Backend& backend);
  ~Stream();  // drops what has not started, waits for what runs
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Runs `work` after everything before it, unless an earlier error is waiting to be told.
  void enqueue(const JobLabel& label, std::function<Status(Backend&)> work);
  // Calls `done` on the stream thread after everything before it, with the kept error or an empty string; the error is
  // forgotten then. `work` runs first if there is no error.
  void enqueue_wait(const JobLabel& label, std::function<Status(Backend&)> work,
                    std::function<void(const std::string& error)> done);
  // Runs `work` after everything before it, error or not: to give memory back.
  void enqueue_always(std::function<void(Backend&)> work);
  // From here on, what is enqueued joins the recording too; null: no more.
  void record(std::shared_ptr<Recording> recording) { recording_ = std::move(recording); }
  const std::shared_ptr<Recording>& recording() const { return recording_; }
  // From start to end it is noted when ops are enqueued and when the device does them, which it then does one by one.
  void start_timing();
  std::vector<TimedJob> end_timing();
  // Blocks the caller until the stream is idle; errors stay kept.
  void drain();
  // What to say of a failure that the enqueuing thread met, which what ran before may have caused. Waits as drain()
  // does.
  std::string tell(const JobLabel& label, const Status& status);
  int64_t jobs_enqueued() const { return jobs_enqueued_; }  // so far; of the thread that enqueues
  int64_t jobs_done() const { return running_; }            // before the one at hand; of the stream thread

 private:
  struct Job {
    JobLabel label;
    std::function<Status(Backend&)> work;
    std::function<void(const std::string&)> done;
    std::function<void(Backend&)> always;
    int64_t enqueued = -1;  // not timed
    int64_t number = 0;
  };
  void push(Job job);
  void run();
  void run_job(Job& job);
  int64_t since_start() const;
  std::string told(const JobLabel& label, const Status& status) const;

  Backend& backend_;
  std::shared_ptr<Recording> recording_;  // of the thread that enqueues
  int64_t jobs_enqueued_ = 0;             // likewise
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Job> jobs_;
  bool busy_ = false, stop_ = false;
  bool timing_ = false;
  std::chrono::steady_clock::time_point timing_start_;
  std::vector<TimedJob> timed_;
  // Of the stream thread alone:
  int64_t running_ = 0;  // number of the job at hand
  std::string error_;
  std::vector<JobLabel> unproven_;  // ran since the device last said that all was well
  std::thread thread_;
};

}  // namespace westwind
