// A small thread pool. Tasks are taken from one counter. The thread that runs a task varies, but its result does not:
// results are bit-identical for any number of threads. Workers spin for two milliseconds before they sleep, because a
// training step runs a dozen short loops and waking a thread takes as long as such a loop. A thread that spins for long
// yields its core, which on a busy machine the awaited thread may need. The caller never waits for a worker that has
// not begun: if other programs keep all workers from a core, the caller runs all tasks.
#pragma once
#if defined(__linux__)
#include <sched.h>
#endif
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace lumi {

class Pool {
  public:
    static Pool& shared() {
        static Pool* pool = new Pool(usable_cores());
        return *pool;  // never destroyed: workers may outlive static destruction
    }
    int threads() const { return threads_; }
    void resize(int n) {
        std::lock_guard<std::mutex> guard(run_mutex_);
        stop();
        start(n < 1 ? 1 : n);
    }
    // Calls f(task) for task in [0, n) and returns when all have finished. Not reentrant: concurrent callers wait.
    template <class F> void run(int n, F&& f) {
        if (n <= 0) return;
        std::lock_guard<std::mutex> guard(run_mutex_);
        if (threads_ == 1 || n == 1) {
            for (int i = 0; i < n; i++) f(i);
            return;
        }
        call_ = [](void* context, int i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
        context_ = &f;
        count_ = n;
        next_.store(0, std::memory_order_relaxed);
        open_.store(true);
        {
            std::lock_guard<std::mutex> lock(sleep_mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        drain();
        // A worker first marks itself active, then checks whether the loop is open. Both are sequentially consistent:
        // either the caller sees the worker here, or the worker sees that the loop is closed and does not call.
        open_.store(false);
        for (int spins = 1; active_.load() != 0; spins++) wait_briefly(spins);
    }

  private:
    explicit Pool(int n) { start(n < 1 ? 1 : n); }
    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    static void wait_briefly(int spins) {
        if (spins % SPINS_TO_YIELD)
            pause();
        else
            std::this_thread::yield();
    }
    static int usable_cores() {
#if defined(__linux__)
        cpu_set_t allowed;  // taskset and containers may allow fewer cores than the machine has
        if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
        return static_cast<int>(std::thread::hardware_concurrency());
    }
    void drain() {
        for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
    }
    void start(int n) {
        threads_ = n;
        stopping_ = false;
        long seen = generation_.load();
        for (int t = 1; t < n; t++) workers_.emplace_back([this, seen] { work(seen); });
    }
    void stop() {
        {
            std::lock_guard<std::mutex> lock(sleep_mutex_);
            stopping_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (auto& w : workers_) w.join();
        workers_.clear();
    }
    void work(long seen) {
        for (;;) {
            using Clock = std::chrono::steady_clock;
            for (auto end = Clock::now() + std::chrono::milliseconds(2);
                 generation_.load(std::memory_order_acquire) == seen && Clock::now() < end;)
                for (int i = 1; i <= SPINS_TO_YIELD && generation_.load(std::memory_order_acquire) == seen; i++)
                    wait_briefly(i);
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(sleep_mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            seen = generation_.load(std::memory_order_acquire);
            if (stopping_) return;
            active_.fetch_add(1);
            if (open_.load()) drain();
            active_.fetch_sub(1);
        }
    }

    static constexpr int SPINS_TO_YIELD = 256;  // about ten microseconds
    int threads_ = 1, count_ = 0;
    void (*call_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::atomic<int> next_{0}, active_{0};
    std::atomic<bool> open_{false};
    std::atomic<long> generation_{0};
    bool stopping_ = false;
    std::mutex run_mutex_, sleep_mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

template <class F> void parallel(int n, F&& f) { Pool::shared().run(n, static_cast<F&&>(f)); }

}  // namespace lumi
